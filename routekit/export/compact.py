"""Compact a routed network: what no image uses goes, what all use is not asked about, batch norms are folded."""

import copy
from dataclasses import dataclass

from torch import Tensor

from routekit.backbones.unit import Fold
from routekit.execution.fold import fold
from routekit.export.drop import reduce
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
    network.stand_alone()
    layout, names = network.layout, [unit.name for unit in network.junctions]
    rates = routes[:, : len(layout.sections)].double().mean(dim=0).view(-1, layout.width)
    again = network.looks_again  # by all units
    asks = not isinstance(network.routers, FixedRoute)  # whose asking costs nothing
    dropped, settled = reduce(
        network,
        dropped=[name for name, rate in zip(names, rates.tolist(), strict=True) if not (again or any(rate))],
        settled=[name for name, rate in zip(names, rates.tolist(), strict=True) if rate[0] == 1 and asks],
    )
    return Compact(network, dropped, settled, fold(network))
