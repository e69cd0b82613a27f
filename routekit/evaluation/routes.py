"""Route statistics: do the routes differ between images, and do they carry information?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RouteStatistics:
    """How a set of routes is distributed.

    Attributes:
        unique: The number of distinct routes.
        entropy: H(route), bits. A hard route is a function of the image, so this is also I(route; image). It is 0 for a
            static network.
        class_information: I(route; class), bits, less the information that a sample of this size has by chance.
        run_rate: `[columns]`, the share of images that take each sink.
    """

    unique: int
    entropy: float
    class_information: float
    run_rate: tuple[float, ...]

    @property
    def collapsed(self) -> bool:
        """Whether routing is nearly static: routes carry less than one bit."""
        return self.entropy < 1.0


def route_statistics(routes: Tensor, labels: Tensor) -> RouteStatistics:
    """Compute the statistics of routes.

    Args:
        routes: `[N, columns]`, bool.
        labels: `[N]`, the classes.

    Returns:
        The statistics.
    """
    # torch needs at least one column, also where nothing is decided.
    distinct, which = torch.unique(F.pad(routes, (0, 1)), dim=0, return_inverse=True)
    # The information about shuffled classes is that of chance.
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return RouteStatistics(
        unique=len(distinct),
        entropy=_entropy(which),
        class_information=max(0.0, _information(which, labels) - _information(which, shuffled)),
        run_rate=tuple(routes.double().mean(dim=0).tolist()),
    )


def _entropy(values: Tensor) -> float:
    """Integers `[N]` -> the entropy of their distribution, bits."""
    p = torch.unique(values, return_counts=True)[1].double() / len(values)
    return max(0.0, float(-(p * p.log2()).sum()))


def _information(which: Tensor, labels: Tensor) -> float:
    """I(which; labels) of integers `[N]`, bits: H(which) + H(labels) - H(both)."""
    both = which * (int(labels.max()) + 1) + labels
    return _entropy(which) + _entropy(labels) - _entropy(both)
