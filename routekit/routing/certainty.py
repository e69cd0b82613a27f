"""How sure a classifier is of its answer: class probabilities [B, classes] -> certainty [B] in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from routekit.registry import Registry

Certainty = Callable[[Tensor], Tensor]
certainties: Registry[Certainty] = Registry("rule")


@certainties.register("confidence")
def confidence(probabilities: Tensor) -> Tensor:
    """Return the probability of the likeliest class."""
    return probabilities.amax(dim=1).clamp_max(1.0)


@certainties.register("entropy")
def negentropy(probabilities: Tensor) -> Tensor:
    """One less the normalised entropy (over its largest value): 1 if one class has it all, 0 if none is likelier."""
    return 1 + torch.xlogy(probabilities, probabilities).sum(dim=1) / torch.tensor(probabilities.shape[1]).log()


def lead(logits: Tensor) -> Tensor:
    """By how much the likeliest class leads the second: logits [B, classes] -> [B], the logarithm of their odds.

    It says the more the surer a classifier is, where probabilities are all nearly 1.
    """
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


def measures(probabilities: Tensor) -> Tensor:
    """[B, classes] -> [B, 3]: the likeliest class's probability, its lead over the second, and `negentropy`."""
    first, second = probabilities.topk(2, dim=1).values.unbind(dim=1)
    return torch.stack([first, first - second, negentropy(probabilities)], dim=1)


class LearnedCertainty(nn.Module):
    """The chance that nobody else knows better: a logistic regression on `measures` of a classifier's answer.

    The small classifier of the "I don't know" cascade (Wang et al., 2018), which says whether to ask on.
    """

    MEASURES = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(self.MEASURES))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, probabilities: Tensor) -> Tensor:
        """[B, classes] -> [B]."""
        return torch.sigmoid((measures(probabilities) * self.weight).sum(dim=1) + self.bias)
