"""How sure a classifier is of its answer: class probabilities [B, classes] -> certainty [B] in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor

from routekit.registry import Registry

Certainty = Callable[[Tensor], Tensor]
certainties: Registry[Certainty] = Registry("rule")


@certainties.register("confidence")
def confidence(probabilities: Tensor) -> Tensor:
    """Return the probability of the likeliest class."""
    return probabilities.amax(dim=1).clamp_max(1.0)


@certainties.register("entropy")
def evenness(probabilities: Tensor) -> Tensor:
    """One less the entropy's share of its largest value: 1 if one class has it all, 0 if none is likelier."""
    return 1 + torch.xlogy(probabilities, probabilities).sum(dim=1) / torch.tensor(probabilities.shape[1]).log()
