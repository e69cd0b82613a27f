"""Gates turn a router's logits [B, K] into sink weights [B, K]: relaxed in training, one-hot at inference.

Every gate is one function `(logits, *, temperature, generator) -> weights`; a new one is a function and a decorator.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.registry import Registry


class Gate(Protocol):
    """Logits [B, K] -> weights [B, K] that sum to 1 over the sinks."""

    def __call__(self, logits: Tensor, *, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Relax, round or sample the logits; `generator` is for gates that sample."""


gates: Registry[Gate] = Registry("gate")


@gates.register("hard")
def hard(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Take the largest logit (Eq. 11 of Wang et al.); a tie runs the unit. No gradient."""
    del temperature, generator
    return one_hot(logits.argmax(dim=1), logits)


@gates.register("soft")
def soft(logits: Tensor, *, temperature: float = 0.2, generator: torch.Generator | None = None) -> Tensor:
    """Two successive softmaxes (Eq. 3 of Wang et al.), with beta = 1 / temperature.

    The inner softmax bounds the outer one's input, so with two sinks the weights lie in
    [sigmoid(-beta), sigmoid(beta)]: they never saturate fully, and the router keeps a gradient.
    """
    del generator
    return torch.softmax(torch.softmax(logits, dim=1) / temperature, dim=1)


@gates.register("straight-through")
def straight_through(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Forward one-hot, backward the softmax (Bengio et al., 2013): training sees what inference does."""
    del generator
    probs = torch.softmax(logits / temperature, dim=1)
    return one_hot(logits.argmax(dim=1), logits) + (probs - probs.detach())


@gates.register("gumbel")
def gumbel(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Straight-through Gumbel softmax (Jang et al., 2017): explores in proportion to the router's doubt."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).to(logits.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12))).to(logits.dtype)
    return straight_through(logits + noise, temperature=temperature)


@gates.register("bernoulli")
def bernoulli(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Sample a sink from the router's distribution, also at inference: "Ber-Dis" of Table 4b of Wang et al.

    The backward pass is that of the softmax, so it can be trained with as well.
    """
    probs = torch.softmax(logits / temperature, dim=1)
    drawn = torch.multinomial(probs.detach().cpu(), 1, generator=generator).squeeze(1).to(logits.device)
    return one_hot(drawn, logits) + (probs - probs.detach())


# The share of decisions to run that the benefit gate overrules, to see what they are worth.
EXPLORED = 0.05
# A few samples with exploding slopes must not teach the rest, in units of the loss.
WORTH_LIMIT = 5.0


@gates.register("benefit")
def benefit(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Teach the router to predict what running its unit is worth; it runs where that exceeds the price.

    The run logit is the prediction, in units of the loss; the skip logit is the price. A few units that would run are
    skipped at random. Wherever a unit was skipped, the backward pass knows the slope of the sample's loss in the gate,
    and the router is taught (least squares) half of it: the benefit of running, if the loss is a parabola with its
    minimum at 1, which is where training keeps it. A unit that runs has a slope near 0 whatever it is worth, so the
    straight-through estimate, which compares slopes at 0 with slopes at 1, opens what is closed and closes what is
    open.
    """
    del temperature
    explored = torch.rand(len(logits), generator=generator).to(logits.device) < EXPLORED
    weights: Tensor = _Benefit.apply(logits, one_hot(logits.argmax(dim=1).masked_fill(explored, 1), logits))
    return weights


class _Benefit(torch.autograd.Function):
    """The weights go forward as they are; the gradient of the least-squares fit comes back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(logits, weights)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        logits, weights = ctx.saved_tensors
        skipped = weights[:, 1]
        # The loss is a mean over the batch: len(logits) times the slope is the sample's own.
        worth = -0.5 * len(logits) * (slope[:, 0] - slope[:, 1])
        error = skipped * (logits[:, 0] - worth.clamp(-WORTH_LIMIT, WORTH_LIMIT)) / skipped.sum().clamp(min=1)
        return torch.stack([error, torch.zeros_like(error)], dim=1), None


def one_hot(choice: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, K] in the dtype of `like` [B, K]."""
    return F.one_hot(choice, like.shape[1]).to(like.dtype)
