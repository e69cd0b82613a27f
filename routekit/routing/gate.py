"""Gates turn a router's logits [B, K] into sink weights [B, K]: relaxed in training, one-hot at inference.

Every gate is one function of the logits and of what it needs of the rest; a new one is a function and a decorator.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.registry import Registry


class Gate(Protocol):
    """Logits [B, K] -> weights [B, K] that sum to 1 over the sinks."""

    def __call__(
        self, logits: Tensor, *, temperature: float, generator: torch.Generator | None, bias: Tensor | None
    ) -> Tensor:
        """Relax, round or sample the logits; `generator` is for gates that sample.

        `bias` [K - 1] or [B, K - 1] is what was added to the logits of all sinks but the last to meet a budget.
        """


gates: Registry[Gate] = Registry("gate")


@gates.register("hard")
def hard(logits: Tensor, **_: Any) -> Tensor:
    """Take the largest logit (Eq. 11 of Wang et al.); a tie runs the unit. No gradient."""
    return one_hot(logits.argmax(dim=1), logits)


@gates.register("soft")
def soft(logits: Tensor, *, temperature: float = 0.2, **_: Any) -> Tensor:
    """Two successive softmaxes (Eq. 3 of Wang et al.), with beta = 1 / temperature.

    The inner softmax bounds the outer one's input, so with two sinks the weights lie in
    [sigmoid(-beta), sigmoid(beta)]: they never saturate fully, and the router keeps a gradient.
    """
    return torch.softmax(torch.softmax(logits, dim=1) / temperature, dim=1)


@gates.register("straight-through")
def straight_through(logits: Tensor, *, temperature: float = 1.0, **_: Any) -> Tensor:
    """Forward one-hot, backward the softmax (Bengio et al., 2013): training sees what inference does."""
    probs = torch.softmax(logits / temperature, dim=1)
    return one_hot(logits.argmax(dim=1), logits) + (probs - probs.detach())


@gates.register("gumbel")
def gumbel(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None, **_: Any) -> Tensor:
    """Straight-through Gumbel softmax (Jang et al., 2017): explores in proportion to the router's doubt."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).to(logits.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12))).to(logits.dtype)
    return straight_through(logits + noise, temperature=temperature)


@gates.register("bernoulli")
def bernoulli(
    logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None, **_: Any
) -> Tensor:
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
def benefit(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Teach the router to predict what each sink is worth; the one is taken whose worth exceeds its price the most.

    The logits without the bias are the predictions, in units of the loss; the default's is no prediction, and the
    bias is less the price. A few decisions fall at random on a cheaper sink. Wherever that was taken, the backward
    pass knows the slope of the sample's loss in the gate, and the router is taught (least squares) half of the
    difference to the slope in each dearer sink's gate: the benefit of taking that one, if the loss is a parabola with
    its minimum there, which is where training keeps it. A unit that runs has a slope near 0 whatever it is worth, so
    the straight-through estimate, which compares slopes at 0 with slopes at 1, opens what is closed and closes what is
    open.
    """
    del temperature
    default = logits.shape[1] - 1
    drawn = torch.rand(len(logits), generator=generator).to(logits.device)
    choice = logits.argmax(dim=1)
    # Of the sinks cheaper than the one to be taken, each is as likely.
    cheaper = choice + 1 + (drawn / EXPLORED * (default - choice)).long()
    choice = torch.where(drawn < EXPLORED, cheaper, choice).clamp_max(default)
    worth = logits[:, :default] if bias is None else logits[:, :default] - bias
    weights: Tensor = _Benefit.apply(worth, one_hot(choice, logits))
    return weights


class _Benefit(torch.autograd.Function):
    """The weights go forward as they are; the gradient of the least-squares fit comes back."""

    @staticmethod
    def forward(ctx: Any, worth: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(worth, weights)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        worth, weights = ctx.saved_tensors
        # Of what was taken: its prediction, that of the default being 0, and its slope.
        taken = (worth * weights[:, :-1]).sum(dim=1, keepdim=True)
        at = (slope * weights).sum(dim=1, keepdim=True)
        dearer = weights.cumsum(dim=1)[:, :-1] == 0
        # The loss is a mean over the batch: its size times the slope is the sample's own.
        benefit = (-0.5 * len(worth) * (slope[:, :-1] - at)).clamp(-WORTH_LIMIT, WORTH_LIMIT)
        error = dearer * (worth - taken - benefit) / dearer.sum(dim=0).clamp(min=1)
        # What was taken is compared with, from the other side.
        return error - weights[:, :-1] * error.sum(dim=1, keepdim=True), None


def one_hot(choice: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, K] in the dtype of `like` [B, K]."""
    return F.one_hot(choice, like.shape[1]).to(like.dtype)
