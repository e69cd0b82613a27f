"""Static networks of equal cost (Table 4a of Wang et al.): K units run for every image, and no router is asked."""

import copy
from collections.abc import Callable

import torch

from routekit.backbones.drop import drop_unit
from routekit.backbones.unit import Backbone, Sink, evaluating, example_input
from routekit.backbones.walk import walk_through
from routekit.cost.target import Reach
from routekit.macs import count
from routekit.registry import Registry

# The order in which units are taken until the budget is spent: (stage of each unit, seed) -> indices.
Order = Callable[[list[int], int], list[int]]

orders: Registry[Order] = Registry("static method")


@orders.register("firstk")
def first_k(stages: list[int], seed: int) -> list[int]:
    """FirstK: from the input on."""
    del seed
    return list(range(len(stages)))


@orders.register("randomk")
def random_k(stages: list[int], seed: int) -> list[int]:
    """RandomK: in random order, by seed."""
    return list(torch.randperm(len(stages), generator=torch.Generator().manual_seed(seed)).tolist())


@orders.register("distributedk")
def distributed_k(stages: list[int], seed: int) -> list[int]:
    """DistributedK: evenly over the stages, in each from its beginning ("flatly across all segments")."""
    del seed
    place = [stages[:index].count(stage) for index, stage in enumerate(stages)]
    return sorted(range(len(stages)), key=lambda index: (place[index] / stages.count(stages[index]), index))


def static_depth(method: str, view: Backbone, target: float, seed: int) -> Backbone:
    """Leave units out, the same for all images.

    Args:
        method: The order in which units are kept until the budget is spent.
        view: The network; it is left as it is.
        target: The cost, MACs. The one along the method's order that is nearest to it is taken.
        seed: For a random order.

    Returns:
        A copy whose other units are their shortcuts.

    Raises:
        InputError: The method is unknown.
    """
    order = orders[method]
    view = copy.deepcopy(view)
    cost, saved = _costs(view)
    every = [unit for unit in view.units if unit.skippable]
    cost -= sum(saved.values())
    kept: list[str] = []
    best, gap = list(kept), abs(cost - target)
    for index in order([unit.stage for unit in every], seed):
        kept.append(every[index].name)
        cost += saved[kept[-1]]
        if abs(cost - target) < gap:
            best, gap = list(kept), abs(cost - target)
    for unit in every:
        if unit.name not in best:
            unit.sinks = (Sink.SKIP,)
            drop_unit(unit)
    return view


def reach_of_depth(view: Backbone) -> Reach:
    """What a network can cost if units are left out of it."""
    whole, saved = _costs(view)
    return Reach(whole - sum(saved.values()), whole, whole, "every unit skipped")


@torch.no_grad()
def _costs(view: Backbone) -> tuple[float, dict[str, float]]:
    """What a network costs, MACs, and what is saved by leaving out each unit that can be."""
    with evaluating(view.model):
        total = float(count(view.stem, (example_input(view),), view.model).flops)
        saved = {}
        walked = list(walk_through(view))
        for unit, x, _ in walked:
            run = count(unit.run, (x,), unit.block).flops
            total += run
            if unit.skippable:
                saved[unit.name] = float(run - count(unit.skip, (x,), unit.block).flops)
        return total + count(view.head, (walked[-1][2],), view.model).flops, saved
