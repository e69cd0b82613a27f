"""What a network that is yet to be made can cost; it is built, with weights that nobody trained, and measured."""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from routekit.backbones.load import build
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.baselines.depth import orders, reach_of_depth
from routekit.baselines.pruning import prune, prunings, reach_of_pruning
from routekit.cost.table import CostTable
from routekit.cost.target import Reach, reach_of_costs
from routekit.errors import InputError
from routekit.formats.checkpoint import network_folder, read_spec
from routekit.junctions.convert import convert
from routekit.junctions.junction import Junction
from routekit.junctions.kinds import junctions as kinds
from routekit.network.pricing import PriceRange
from routekit.routing.router import RouterConfig


@cache
def dense_cost(spec: ModelSpec) -> float:
    """What a network costs as it is, MACs."""
    return CostTable.measure(convert(build(spec))).dense


def sized(spec: ModelSpec, junction: Junction, budget: float) -> Junction:
    """Settle what a junction leaves open; `budget` is a share of what it is attached to."""
    return junction.sized(budget, _built(spec))


def reach_of(
    spec: ModelSpec,
    method: str,
    junctions: Mapping[str, Junction] | None = None,
    routers: RouterConfig | None = None,
    prices: PriceRange | None = None,
    pruned: tuple[str, float] | None = None,
) -> Reach:
    """What a network can cost, made of one of `spec`; routers have to be asked, whatever they decide.

    Args:
        spec: The network.
        method: "routed", or a static method.
        junctions: What is decided.
        routers: How routers are built.
        prices: Whether they get the price of computing.
        pruned: By which method the network is pruned before, and to which cost, MACs.

    Returns:
        From what to what, in MACs.

    Raises:
        InputError: A junction or a pruning that does not fit the network.
    """
    if method in prunings:
        return _pruning_reach(spec, method)
    if method in orders:
        return reach_of_depth(_built(spec))
    chosen = (junctions or {}).values()
    # Routers cost the same whatever their settings are but these.
    return _routed_reach(spec, tuple(map(_frozen, chosen)), routers, prices is not None, pruned)


def _frozen(junction: Junction) -> tuple[str, str]:
    return junction.kind, TypeAdapter(type(junction)).dump_json(junction).decode()


@cache
def _routed_reach(
    spec: ModelSpec,
    frozen: tuple[tuple[str, str], ...],
    routers: RouterConfig | None,
    priced: bool,
    pruned: tuple[str, float] | None,
) -> Reach:
    chosen = [TypeAdapter(kinds[kind]).validate_json(text) for kind, text in frozen]
    view = build(spec) if pruned is None else copy.deepcopy(_pruned(spec, *pruned))
    prices = PriceRange() if priced else None
    costs = CostTable.measure(convert(view, chosen, routers=routers, adaptive_cost=prices))
    return reach_of_costs(costs, dense_cost(spec) if pruned is not None else None, cheapest(chosen))


def cheapest(chosen: Sequence[Junction]) -> str:
    """In words, when a network with these junctions costs least."""
    passes = [junction.cheapest for junction in chosen if junction.rank == 2]
    if passes:  # nothing lies before the first pass
        return passes[0]
    words = [junction.cheapest for junction in chosen if junction.cheapest]
    # A unit that is skipped is not narrow.
    units = [junction.cheapest for junction in chosen if junction.rank == 0 and junction.cheapest]
    return ", ".join(dict.fromkeys([*units[:1], *(word for word in words if word not in units)]))


@cache
def _built(spec: ModelSpec) -> Backbone:
    return build(spec)


@cache
def _pruned(spec: ModelSpec, method: str, left: float) -> Backbone:
    return prune(_built(spec), method, left)


@cache
def _pruning_reach(spec: ModelSpec, method: str) -> Reach:
    return reach_of_pruning(_built(spec), method)


def smaller_reach(paths: Sequence[str], last: float, whole: float) -> Reach:
    """What a cascade of networks that are done and of one that costs `last` can cost.

    Raises InputError for smaller networks that are not there, or do not say what they cost.
    """
    least, *others = map(_mean_cost, paths)
    most = least + sum(others) + last
    return Reach(least, most, whole, "the smallest network alone", "all of its networks", who="this cascade")


def _mean_cost(path: str) -> float:
    """What an image costs in a network that is done, MACs."""
    record: dict[str, Any] | None = read_spec(network_folder(Path(path)))["about"].get("record")
    if record is None:
        raise InputError(f"--smaller {path}: nothing says what it costs; give the run that it came from")
    return float(record["flops"]["realized"])
