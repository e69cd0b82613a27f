"""Compact a routed network: what no image uses goes, what all use is not asked about, batch norms are folded."""

import copy
from dataclasses import dataclass

from torch import Tensor

from routekit.execution.fold import Fold, fold
from routekit.export.drop import drop_unit
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FixedRoute


@dataclass(frozen=True)
class Compact:
    """A compacted copy, and what was done to get it."""

    network: RoutedNetwork
    dropped: list[str]
    settled: list[str]
    folded: list[Fold]


def compact(network: RoutedNetwork, routes: Tensor) -> Compact:
    """Drop the units that none of `routes` [N, n] bool runs, and the routers of those that all run; fold batch norms.

    `network` is left as it is. Units are dropped and settled on the evidence of those routes: an image that would have
    run a dropped one takes its shortcut instead, one that would have skipped a settled one runs it.
    """
    network = copy.deepcopy(network).eval()
    rates = routes.double().mean(dim=0).tolist()
    dropped, settled = [], []
    for index, unit in reversed(list(enumerate(network.junctions))):
        settles = rates[index] == 1 and not isinstance(network.routers, FixedRoute)  # whose asking costs nothing
        last = len(network.junctions) == 1  # a routed network has one at least, however it decides
        if last or not (rates[index] == 0 or settles) or not network.routers.forget(index):
            continue
        if rates[index] == 0:
            dropped.append(unit.name)
            drop_unit(unit)
        else:
            settled.append(unit.name)
            unit.skippable = False
    return Compact(network, dropped[::-1], settled[::-1], fold(network))
