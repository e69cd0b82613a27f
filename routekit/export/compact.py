"""Compact a routed network: what no image uses goes, batch norms are folded."""

import copy
from dataclasses import dataclass

from torch import Tensor

from routekit.execution.fold import Fold, fold
from routekit.export.drop import drop_unit
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class Compact:
    """A compacted copy, and what was done to get it."""

    network: RoutedNetwork
    dropped: list[str]
    folded: list[Fold]


def compact(network: RoutedNetwork, routes: Tensor) -> Compact:
    """Drop the units that none of `routes` [N, n] bool runs, and fold batch norms; `network` is left as it is.

    Units are dropped on the evidence of those routes: an image that would have run one takes its shortcut instead.
    """
    network = copy.deepcopy(network).eval()
    used = routes.any(dim=0).tolist()
    dropped = []
    for index, unit in reversed(list(enumerate(network.junctions))):
        if not used[index] and network.routers.forget(index):
            dropped.append(unit.name)
            drop_unit(unit)
    return Compact(network, dropped[::-1], fold(network))
