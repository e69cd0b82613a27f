"""Compact a routed network: drop what no image uses and routers of what all use, and fold batch norms."""

import copy
from dataclasses import dataclass

from torch import Tensor

from routekit.backbones.unit import Fold
from routekit.execution.fold import fold
from routekit.formats.drop import reduce
from routekit.network.network import RoutedNetwork
from routekit.network.program import Units


@dataclass(frozen=True)
class Compact:
    """A compacted copy, and what was done to get it.

    Attributes:
        network: The copy.
        dropped: The units that are gone.
        settled: The units that run for all images now, without a router.
        folded: The batch norms that were folded.
    """

    network: RoutedNetwork
    dropped: list[str]
    settled: list[str]
    folded: list[Fold]


def compact(network: RoutedNetwork, routes: Tensor) -> Compact:
    """Drop the units that no image runs, and the routers of those that all run; fold batch norms.

    These routes decide it. An image that would have run a dropped unit takes its shortcut. An image that would have
    skipped a unit without a router runs it. A unit that another pass runs is not dropped.

    Args:
        network: It stays as it is.
        routes: `[N, columns]`, bool, of images like those to come.

    Returns:
        The compact network.
    """
    alone = copy.deepcopy(network).eval()
    alone.stand_alone()
    found = _reduced(alone, routes, everything=True)
    if _parameters(alone) <= _parameters(network):
        return found
    # Parts that share weights take less: they stay so. What is shared can neither be dropped nor take a batch norm in.
    return _reduced(copy.deepcopy(network).eval(), routes, everything=False)


def _reduced(network: RoutedNetwork, routes: Tensor, *, everything: bool) -> Compact:
    rates = dict(zip(network.columns, routes.double().mean(dim=0).tolist(), strict=True))
    blocks = [unit.block for step in network.steps if isinstance(step, Units) for unit in step.units]
    dropped, settled = [], []
    for step in network.steps:
        if isinstance(step, Units) and step.routers is not None and not step.routers.forks:
            for unit in step.deciding:
                name = f"{step.prefix}{unit.name}"
                others = [f"{name} branch {sink}" for sink in range(1, len(unit.sinks) - 1)]
                elsewhere = sum(block is unit.block for block in blocks) > 1
                if everything and not (elsewhere or any(rates[each] for each in (name, *others))):
                    dropped.append(name)
                if rates[name] == 1:
                    settled.append(name)
    dropped, settled = reduce(network, dropped, settled)
    return Compact(network, dropped, settled, fold(network) if everything else [])


def _parameters(network: RoutedNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
