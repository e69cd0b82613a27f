"""Gates turn a router's logits [B, K] into sink weights [B, K]: relaxed in training, one-hot at inference.

Every gate is one function `(logits, *, temperature, generator) -> weights`; a new one is a function and a decorator.
"""

from typing import Protocol

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


def one_hot(choice: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, K] in the dtype of `like` [B, K]."""
    return F.one_hot(choice, like.shape[1]).to(like.dtype)
