"""Static networks of equal cost (Table 4a of Wang et al.): K units run for every image, without routers."""

import copy
from collections.abc import Callable
from itertools import accumulate

import torch

from routekit.backbones.drop import drop_unit
from routekit.backbones.unit import Backbone, Sink, evaluating, seen_input
from routekit.backbones.walk import walk_through
from routekit.cost.target import Reach
from routekit.macs import count
from routekit.registry import Registry

# The order in which units are taken until the budget is spent: (stage of each unit, seed) -> indices.
Order = Callable[[list[int], int], list[int]]

orders: Registry[Order] = Registry("static method")


@orders.register("firstk")
def first_k(stages: list[int], _seed: int) -> list[int]:
    """FirstK: from the input on."""
    return list(range(len(stages)))


@orders.register("randomk")
def random_k(stages: list[int], seed: int) -> list[int]:
    """RandomK: in random order, by seed."""
    return list(torch.randperm(len(stages), generator=torch.Generator().manual_seed(seed)).tolist())


@orders.register("distributedk")
def distributed_k(stages: list[int], _seed: int) -> list[int]:
    """DistributedK: evenly over the stages, in each from its beginning ("flatly across all segments")."""
    place = [stages[:index].count(stage) for index, stage in enumerate(stages)]
    return sorted(range(len(stages)), key=lambda index: (place[index] / stages.count(stages[index]), index))


def static_depth(method: str, view: Backbone, target: float, seed: int, *, above: bool = True) -> Backbone:
    """Drop units, the same for all images.

    Args:
        method: The order in which units are kept until the budget is spent: a name in `orders`.
        view: The network. It stays as it is.
        target: The cost, MACs. Of the networks along the order, the one whose cost is nearest is made.
        seed: For a random order.
        above: Whether it may cost more than the target.

    Returns:
        A copy in which each dropped unit is its shortcut.

    Raises:
        InputError: The method is unknown.
    """
    order = orders[method]
    view = copy.deepcopy(view)
    whole, saved = _costs(view)
    units = [unit for unit in view.units if unit.skippable]
    taken = [units[index].name for index in order([unit.stage for unit in units], seed)]
    costs = list(accumulate((saved[name] for name in taken), initial=whole - sum(saved.values())))
    kept = [count for count in range(len(costs)) if above or costs[count] <= target]
    nearest = min(kept, key=lambda count: abs(costs[count] - target), default=0)
    for unit in units:
        if unit.name not in taken[:nearest]:
            unit.sinks = (Sink.SKIP,)
            drop_unit(unit)
    return view


def reach_of_depth(view: Backbone) -> Reach:
    """Say what a network can cost if units are dropped."""
    whole, saved = _costs(view)
    return Reach(whole - sum(saved.values()), whole, whole, "every unit skipped")


def _costs(view: Backbone) -> tuple[float, dict[str, float]]:
    """Count what a network costs, MACs, and what is saved by dropping each unit that can be skipped."""
    with evaluating(view.model), torch.no_grad():
        saved = {
            unit.name: float(count(unit.run, (x,), unit.block).flops - count(unit.skip, (x,), unit.block).flops)
            for unit, x, _ in walk_through(view)
            if unit.skippable
        }
        return float(count(view.model, (seen_input(view),), view.model).flops), saved
