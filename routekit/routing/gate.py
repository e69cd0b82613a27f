"""Gates turn a router's logits `[B, K]` into sink weights `[B, K]`: relaxed in training, one-hot at inference.

Each gate is one function. A new one is a function and a decorator.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.registry import Registry


class Gate(Protocol):
    """Logits `[B, K]` -> weights `[B, K]` that sum to 1 over the sinks."""

    def __call__(
        self, logits: Tensor, *, temperature: float, generator: torch.Generator | None, bias: Tensor | None
    ) -> Tensor:
        """Relax, round or sample the logits.

        Args:
            logits: `[B, K]`, the router's scores with the bias.
            temperature: Divides the logits of gates that relax.
            generator: For gates that sample.
            bias: `[K - 1]` or `[B, K - 1]`, which was added to the logits of all sinks but the last.

        Returns:
            The weights `[B, K]`.
        """


gates: Registry[Gate] = Registry("gate")


@gates.register("hard")
def hard(logits: Tensor, **_: Any) -> Tensor:
    """Take the largest logit (Eq. 11 of Wang et al.). A tie runs the unit. There is no gradient."""
    return one_hot(logits.argmax(dim=1), logits)


@gates.register("soft")
def soft(logits: Tensor, *, temperature: float = 0.2, **_: Any) -> Tensor:
    """Two successive softmaxes: Eq. 3 of Wang et al., with beta = 1 / temperature.

    The inner softmax bounds the input of the outer one. With two sinks, the weights lie in
    [sigmoid(-beta), sigmoid(beta)]. So they never saturate, and the router keeps a gradient.
    """
    return torch.softmax(torch.softmax(logits, dim=1) / temperature, dim=1)


@gates.register("softmax")
def softmax(logits: Tensor, *, temperature: float = 1.0, **_: Any) -> Tensor:
    """Take the softmax: the soft gates with which SkipNet begins (section 3.3 of Wang et al., 2018)."""
    return torch.softmax(logits / temperature, dim=1)


@gates.register("straight-through")
def straight_through(logits: Tensor, *, temperature: float = 1.0, **_: Any) -> Tensor:
    """One-hot forward, the softmax backward (Bengio et al., 2013). Training computes what inference does."""
    probs = torch.softmax(logits / temperature, dim=1)
    return hard(logits) + (probs - probs.detach())


@gates.register("gumbel")
def gumbel(logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None, **_: Any) -> Tensor:
    """Straight-through Gumbel softmax (Jang et al., 2017). It samples sinks by the router's probabilities."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).to(logits.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12))).to(logits.dtype)
    return straight_through(logits + noise, temperature=temperature)


@gates.register("bernoulli")
def bernoulli(
    logits: Tensor, *, temperature: float = 1.0, generator: torch.Generator | None = None, **_: Any
) -> Tensor:
    """Sample a sink by the router's probabilities. The backward pass is that of the softmax."""
    probs = torch.softmax(logits / temperature, dim=1)
    return _drawn(probs, generator) + (probs - probs.detach())


def sampling(gate: str, temperature: float) -> Gate:
    """Sample sinks at inference, too: "Ber-Dis" of Table 4b of Wang et al., where hard routing takes the likeliest one.

    Args:
        gate: The gate of training. The probabilities are its weights: of "soft" those of Eq. 3, else the softmax.
        temperature: Its temperature at the end of training.

    Returns:
        The gate.
    """

    def draw(logits: Tensor, *, generator: torch.Generator | None = None, **_: Any) -> Tensor:
        if gate == "soft":
            return _drawn(soft(logits, temperature=temperature), generator)
        return _drawn(torch.softmax(logits / temperature, dim=1), generator)

    return draw


def _drawn(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """Probabilities `[B, K]` -> one-hot weights `[B, K]` of sinks that are drawn by them."""
    drawn = torch.multinomial(probabilities.detach().cpu(), 1, generator=generator).squeeze(1)
    return one_hot(drawn.to(probabilities.device), probabilities)


# The share of decisions in whose place the benefit gate takes a cheaper sink, to learn what the dearer one is worth.
EXPLORED = 0.05
# In units of the loss. A few samples with huge slopes must not decide what routers learn, nor predictions that are far
# off make the next ones worse: in small batches, where few samples tell, that would go on for ever.
WORTH_LIMIT = 5.0


@gates.register("benefit")
def benefit(
    logits: Tensor, *, generator: torch.Generator | None = None, bias: Tensor | None = None, **_: Any
) -> Tensor:
    """Teach the router to predict what each sink is worth. Take the sink whose worth exceeds its price the most.

    The logits without the bias are the predictions, in units of the loss. The bias is the price, negated. The worth of
    the default is 0. A few decisions, drawn at random, take a cheaper sink. Wherever a sink is taken, the backward pass
    gives the slope of the sample's loss in its weight, and in that of each dearer sink. Half of the difference of the
    two slopes is the benefit of the dearer sink, if the loss is a parabola with its minimum there. Training keeps the
    minimum there, so routers learn this benefit by least squares (Huber's, far off).

    The straight-through estimate is no substitute. A unit that runs has a slope near 0 whatever it is worth, so
    comparing slopes at 0 with slopes at 1 opens closed units and closes open ones.
    """
    default = logits.shape[1] - 1
    drawn = torch.rand(len(logits), generator=generator).to(logits.device)
    choice = logits.argmax(dim=1)
    # All sinks cheaper than the chosen one are equally likely.
    cheaper = choice + 1 + (drawn / EXPLORED * (default - choice)).long()
    choice = torch.where(drawn < EXPLORED, cheaper, choice).clamp_max(default)
    worth = logits[:, :default] if bias is None else logits[:, :default] - bias
    weights: Tensor = _Benefit.apply(worth, one_hot(choice, logits))
    return weights


class _Benefit(torch.autograd.Function):
    """Pass the weights on unchanged; the gradient is that of the least-squares fit (`benefit`)."""

    @staticmethod
    def forward(ctx: Any, worth: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(worth, weights)
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        worth, weights = ctx.saved_tensors
        # The prediction for the sink that was taken, which is 0 for the default, and the slope in its weight.
        taken = (worth * weights[:, :-1]).sum(dim=1, keepdim=True)
        at = (slope * weights).sum(dim=1, keepdim=True)
        dearer = weights.cumsum(dim=1)[:, :-1] == 0
        # The loss is a mean over the batch, so the slope of a sample's own loss is the batch size times larger.
        benefit = (-0.5 * len(worth) * (slope[:, :-1] - at)).clamp(-WORTH_LIMIT, WORTH_LIMIT)
        error = (worth - taken - benefit).clamp(-WORTH_LIMIT, WORTH_LIMIT)
        error = dearer * error / dearer.sum(dim=0).clamp(min=1)
        # The prediction for the sink that was taken is the other side of each comparison.
        return error - weights[:, :-1] * error.sum(dim=1, keepdim=True), None


def one_hot(choice: Tensor, like: Tensor) -> Tensor:
    """Turn choices into one-hot weights.

    Args:
        choice: `[B]`, int64, the sink that is taken.
        like: `[B, K]`, a tensor of the wanted size and dtype.

    Returns:
        `[B, K]`.
    """
    return F.one_hot(choice, like.shape[1]).to(like.dtype)
