"""How sure a classifier is of its answer: class probabilities `[B, classes]` -> certainty `[B]` in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from routekit.registry import Registry

Certainty = Callable[[Tensor], Tensor]
certainties: Registry[Certainty] = Registry("rule")


@certainties.register("confidence")
def confidence(probabilities: Tensor) -> Tensor:
    """Probabilities `[B, classes]` -> `[B]`, that of the likeliest class."""
    return probabilities.amax(dim=1).clamp_max(1.0)


@certainties.register("entropy")
def negentropy(probabilities: Tensor) -> Tensor:
    """Probabilities `[B, classes]` -> `[B]`, one less their entropy, which is divided by its largest value.

    It is 1 if one class has all of the probability, and 0 if all classes are equally likely.
    """
    return 1 + torch.xlogy(probabilities, probabilities).sum(dim=1) / torch.tensor(probabilities.shape[1]).log()


def lead(logits: Tensor) -> Tensor:
    """Logits `[B, classes]` -> `[B]`, the logarithm of the odds of the likeliest class against the second.

    It still differs between images where all largest probabilities are nearly 1.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


def measures(probabilities: Tensor) -> Tensor:
    """Probabilities `[B, classes]` -> `[B, 3]`: the largest, its lead over the second, and `negentropy`."""
    first, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
    return torch.stack([first, first - second, negentropy(probabilities)], dim=1)


class LearnedCertainty(nn.Module):
    """The chance that deferring does not help: a logistic regression on `measures` of the answer.

    It is the small classifier of the "I don't know" cascade (Wang et al., 2018).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Probabilities `[B, classes]` -> certainty `[B]`."""
        return torch.sigmoid((measures(probabilities) * self.weight).sum(dim=1) + self.bias)
