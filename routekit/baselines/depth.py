"""Static networks of equal cost (Table 4a of Wang et al.): K units run for every image, and no router is asked."""

from collections.abc import Callable

import torch

from routekit.backbones.unit import Backbone
from routekit.cost.model import CostModel
from routekit.errors import InputError
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


def static_route(method: str, view: Backbone, costs: CostModel, target: float, seed: int) -> list[bool]:
    """Choose the route [n] whose cost is nearest to `target` MACs along the method's order.

    `costs` must be those of a network without routers. Raises InputError for an unknown method.
    """
    stages = [unit.stage for unit in view.units if unit.skippable]
    if costs.ask.any():
        raise InputError("a static route is priced without routers: measure dense(model)")
    route = [False] * len(stages)
    best, gap = list(route), abs(costs.minimum - target)
    for index in orders[method](stages, seed):
        route[index] = True
        cost = float(costs.of_routes(torch.tensor([route]))[0])
        if abs(cost - target) < gap:
            best, gap = list(route), abs(cost - target)
    return best
