"""Path statistics: do the routes differ between images, and do they carry information?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RouteStatistics:
    """What a set of routes [N, n] looks like.

    unique:        distinct routes
    entropy:       H(route) in bits. Hard routes are a function of the image, so this is also the mutual information
                   between route and image; 0 is a static network
    class_information: I(route; class) in bits, corrected for the chance information of a finite sample
    run_rate:      [n] share of images that run each unit
    """

    unique: int
    entropy: float
    class_information: float
    run_rate: tuple[float, ...]

    @property
    def collapsed(self) -> bool:
        """Whether routing has become (nearly) static: less than a bit of information in the route."""
        return self.entropy < 1.0


def route_statistics(routes: Tensor, labels: Tensor) -> RouteStatistics:
    """Routes [N, n] bool and labels [N] -> their statistics."""
    # Where nothing is decided, all take one route: a column of its own, because torch wants one at least.
    distinct, which = torch.unique(F.pad(routes, (0, 1)), dim=0, return_inverse=True)
    entropy = _entropy(torch.bincount(which))
    return RouteStatistics(
        unique=len(distinct),
        entropy=entropy,
        class_information=_information(which, labels),
        run_rate=tuple(routes.double().mean(dim=0).tolist()),
    )


def _entropy(counts: Tensor) -> float:
    p = counts[counts > 0].double() / counts.sum()
    return max(0.0, float(-(p * p.log2()).sum()))


def _information(which: Tensor, labels: Tensor) -> float:
    """I(route; class), less what the same routes would seem to tell about shuffled classes."""
    shuffle = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return max(0.0, _plug_in(which, labels) - _plug_in(which, labels[shuffle]))


def _plug_in(which: Tensor, labels: Tensor) -> float:
    joint = which * (int(labels.max()) + 1) + labels
    return (
        _entropy(torch.bincount(which))
        + _entropy(torch.bincount(labels))
        - _entropy(torch.unique(joint, return_counts=True)[1])
    )
