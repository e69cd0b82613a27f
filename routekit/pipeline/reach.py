"""What a network that is yet to be made can cost: it is built with untrained weights, and measured."""

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from routekit.backbones.load import build
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.baselines.depth import orders, reach_of_depth
from routekit.baselines.pruning import prune, prunings, reach_of_pruning
from routekit.cost.table import CostTable
from routekit.cost.target import Reach, reach_of_costs
from routekit.errors import InputError
from routekit.formats.checkpoint import read_about
from routekit.junctions.convert import convert
from routekit.junctions.junction import Junction
from routekit.network.pricing import PriceRange
from routekit.pipeline.run_plan import Pruned, RunPlan
from routekit.report.record import record_beside
from routekit.routing.router import RouterConfig

# Networks are the same for all plans of a process: a comparison has many plans of one network.
built = cache(build)


@cache
def dense_cost(spec: ModelSpec) -> float:
    """What a network costs as it is, MACs."""
    return CostTable.measure(convert(build(spec))).dense


def reach_of(plan: RunPlan) -> Reach:
    """What the network of a plan can cost on average, MACs. The cost of its routers is included.

    Args:
        plan: A plan with a target.

    Returns:
        The least and the greatest mean cost.

    Raises:
        InputError: A junction or a pruning does not fit the network, or the cost of a smaller network is not known.
    """
    if plan.smaller:
        last = plan.dense_cost if plan.pruned is None else plan.pruned.cost
        least, *others = map(_mean_cost, plan.smaller)
        return Reach(
            least,
            least + sum(others) + last,
            plan.dense_cost,
            "the smallest network alone",
            "all of its networks",
            who="this cascade",
        )
    if plan.method in prunings:
        return _reach_of_pruning(plan.spec, plan.method)
    if plan.method in orders:
        return reach_of_depth(built(plan.spec))
    chosen = tuple(plan.junctions.values())
    # Of the settings of prices, none changes the cost of a router.
    return _reach_of_routed(plan.spec, chosen, plan.routers, plan.prices is not None, plan.pruned)


@cache
def _reach_of_routed(
    spec: ModelSpec, chosen: tuple[Junction, ...], routers: RouterConfig, priced: bool, pruned: Pruned | None
) -> Reach:
    view = build(spec) if pruned is None else copy.deepcopy(_pruned(spec, pruned))
    network = convert(view, chosen, routers=routers, adaptive_cost=PriceRange() if priced else None)
    return reach_of_costs(CostTable.measure(network), None if pruned is None else dense_cost(spec), _cheapest(chosen))


def _cheapest(chosen: Sequence[Junction]) -> str:
    """In words, when a network with these junctions costs least."""
    words = {rank: [each.cheapest for each in chosen if each.cheapest and each.rank == rank] for rank in range(4)}
    if words[2]:  # nothing lies before the first pass
        return words[2][0]
    # A unit that is skipped is not narrow.
    return ", ".join(dict.fromkeys([*words[0][:1], *words[1], *words[3]]))


@cache
def _pruned(spec: ModelSpec, pruned: Pruned) -> Backbone:
    return prune(built(spec), pruned.method, pruned.cost)


@cache
def _reach_of_pruning(spec: ModelSpec, method: str) -> Reach:
    return reach_of_pruning(built(spec), method)


def _mean_cost(path: str) -> float:
    """The mean cost of an image in a finished network, MACs."""
    record = record_beside(read_about(Path(path)))
    if record is None:
        raise InputError(f"smaller={path}: nothing says what it costs; give the run that it came from")
    return float(record["flops"]["realized"])
