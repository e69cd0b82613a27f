"""What a recipe asks for: which network is made of which one, and for how many MACs an image."""

import copy
import math
from dataclasses import replace
from functools import cache

import torch

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.baselines.depth import static_route
from routekit.baselines.pruning import prune, prunings, reach_of_pruning
from routekit.cost.budget import Reach, parse_amount, reach_of_costs
from routekit.cost.model import CostModel
from routekit.errors import InputError
from routekit.network.branches import AUTO
from routekit.network.convert import convert, dense
from routekit.network.network import RoutedNetwork
from routekit.recipe import Recipe, static
from routekit.routing.router import FixedRoute
from routekit.training.batches import step_seed


def spec_of_recipe(recipe: Recipe) -> ModelSpec:
    """The architecture that a recipe names, at its images' size."""
    size = recipe.data.input_size
    return spec_of(recipe.model.name, input_size=None if size is None else (3, size, size))


def dense_of(recipe: Recipe, *, untrained: bool) -> Recipe:
    """The recipe of the dense network that a recipe begins with: as it is, or trained first."""
    training = recipe.dense if untrained else replace(recipe.dense, epochs=0)
    return recipe.model_copy(update=static("dense") | {"target": None, "training": training})


def last_of(recipe: Recipe, *, untrained: bool = False) -> Recipe:
    """The recipe of the network behind the smaller ones: pruned half-way to the budget, or the dense one."""
    if recipe.pruning is None:
        return dense_of(recipe, untrained=untrained)
    whole = dense_cost(recipe)
    left = f"{100 * pruned_to(recipe, whole) / whole:.2f}%"
    return recipe.model_copy(update=static(recipe.pruning.method) | {"target": left})


def settled(recipe: Recipe) -> Recipe:
    """The recipe as it is carried out: without its pruning, if that is for smaller budgets only.

    Where it is pruned for such a one, or stands behind smaller networks, it does not look again. Raises InputError for
    a network or a budget that cannot be.
    """
    if recipe.smaller:
        recipe = looking_once(recipe)
    if recipe.pruning is None or recipe.target is None or recipe.method != "routed":
        return recipe
    whole = dense_cost(recipe)
    if parse_amount(recipe.target, whole) < recipe.prunes_below * whole:
        # It is pruned because few images could get to the end: there is nothing to spend on looking at them twice.
        return looking_once(recipe) if recipe.pruning.below < 1 else recipe
    return recipe.model_copy(update={"pruning": None})


def looking_once(recipe: Recipe) -> Recipe:
    """The recipe without a second look."""
    return recipe.model_copy(update={"junctions": [kind for kind in recipe.junctions if kind != "again"]})


def dense_cost(recipe: Recipe) -> float:
    """What the recipe's network costs as it is, MACs."""
    return _dense_cost_of(spec_of_recipe(recipe))


@cache
def _dense_cost_of(spec: ModelSpec) -> float:
    return CostModel.measure(dense(build(spec))).dense


def target_of(recipe: Recipe, view: Backbone) -> float:
    """The budget in MACs. Raises InputError if the recipe's network cannot meet it."""
    assert recipe.target is not None
    return reach_of(recipe, view).meet(recipe.target)


def reach_of(recipe: Recipe, view: Backbone, pruned: Backbone | None = None) -> Reach:
    """What the recipe's network can cost, made of a dense one; routers have to be asked, whatever they decide.

    `pruned` is the dense one as the recipe prunes it, where that is at hand; it is changed.
    """
    if recipe.method in prunings:
        return reach_of_pruning(view, recipe.method)
    dense_costs = CostModel.measure(dense(view))
    if recipe.method != "routed":
        return reach_of_costs(dense_costs, cheapest=CHEAPEST["skip"])
    whole = dense_costs.dense
    costs = CostModel.measure(routed(recipe, copy.deepcopy(view), whole, pruned))
    return reach_of_costs(costs, whole if recipe.pruning is not None else None, _cheapest(recipe))


# What each kind of junction can make of a network, to be cheap.
CHEAPEST = {
    "skip": "every unit skipped",
    "branch": "every unit narrow",
    "exit": "every image stopped at the first exit",
    "cascade": "the narrow form alone",
}


def _cheapest(recipe: Recipe) -> str:
    """In words, when the recipe's network costs least."""
    if "branch" in recipe.junctions and recipe.branches.forks:
        return "the cheapest path alone"
    # A unit that is skipped is not narrow, and before the narrow form of a network there are no units.
    kinds = [kind for kind in ("cascade", "skip", "branch") if kind in recipe.junctions][:1]
    exits = ["exit"] if "exit" in recipe.junctions and "cascade" not in kinds else []
    return ", ".join(CHEAPEST[kind] for kind in [*kinds, *exits])


def pruned_to(recipe: Recipe, whole: float) -> float:
    """What the recipe's pruning leaves of `whole` MACs: half-way to the budget, unless it says how much."""
    assert recipe.pruning is not None
    assert recipe.target is not None
    if recipe.pruning.target != AUTO:
        left = parse_amount(recipe.pruning.target, whole)
        if left >= whole:
            raise InputError(f"--prune {recipe.pruning.method}:{recipe.pruning.target} leaves the network whole")
        return left
    return math.sqrt(parse_amount(recipe.target, whole) * whole)


def network_of(recipe: Recipe, view: Backbone, target: float | None) -> RoutedNetwork:
    """The network that is trained, made of a dense one; `target` in MACs is None if it meets no budget."""
    torch.manual_seed(step_seed(recipe.seed, 1))
    if recipe.method == "dense" or target is None:
        return dense(view)
    if recipe.method == "routed":
        return routed(recipe, view)
    if recipe.method in prunings:
        return dense(prune(view, recipe.method, target, recipe.seed))
    costs = CostModel.measure(dense(view))
    return convert(view, FixedRoute(static_route(recipe.method, view, costs, target, recipe.seed)))


def routed(recipe: Recipe, view: Backbone, whole: float | None = None, pruned: Backbone | None = None) -> RoutedNetwork:
    """Convert a dense network as the recipe says, pruned first if it says so; else exact until it is trained.

    `whole` is what it costs as it is, MACs, where that is known, and `pruned` is what is left of it, likewise.
    """
    assert recipe.target is not None
    whole = whole or CostModel.measure(dense(view)).dense
    target, left = parse_amount(recipe.target, whole), whole
    if recipe.pruning is not None:
        left = pruned_to(recipe, whole)
        view = pruned or prune(view, recipe.pruning.method, left, recipe.seed)
    budget = target / left
    exits = {"cascade": recipe.cascade.exits(budget, view), "exit": [recipe.exits]}
    prices = recipe.adaptive_cost
    if prices is not None and ("exit" in recipe.junctions or not prices.is_open):
        # What units are worth is learned from all that is minimised; exits go by cross-entropy alone.
        learned = {"skip", "branch"} & set(recipe.junctions)
        prices = prices.sized(left, recipe.objective.error_scale if learned else 1.0)
    return convert(
        view,
        recipe.routers,
        exits=[config for kind, configs in exits.items() if kind in recipe.junctions for config in configs],
        branches=recipe.branches.sized(budget) if "branch" in recipe.junctions else None,
        skips="skip" in recipe.junctions,
        dial=prices,
    )
