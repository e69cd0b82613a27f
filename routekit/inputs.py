"""What a run starts from: its images, and a network that knows their classes or has yet to learn them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.load import build, has_published_weights, load_backbone, resolve, spec_of
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.baselines.pruning import check_prunable, prune, prunings
from routekit.cost.budget import parse_amount, parse_target
from routekit.cost.macs import describe
from routekit.cost.model import CostModel
from routekit.data.sources import DataSplits, load_data
from routekit.errors import InputError
from routekit.export.checkpoint import load_network, network_folder, read_spec
from routekit.machine import Hooks
from routekit.network.branches import AUTO
from routekit.network.convert import convert, dense
from routekit.network.network import RoutedNetwork
from routekit.recipe import Recipe, static
from routekit.routing.router import FixedRoute
from routekit.training.batches import step_seed

# The classes of the CIFAR networks' published weights, in their order.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NO_BUDGET = "which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8"


@dataclass(frozen=True)
class Inputs:
    """The images and the network of a run; `untrained` if the network's classifier has yet to be trained for them."""

    data: DataSplits
    view: Backbone
    untrained: bool


def check(recipe: Recipe) -> None:
    """Raise InputError for a network, weights or a budget that cannot be, before anything is loaded or written."""
    if recipe.smaller:
        _check_smaller(recipe)
        recipe = last_of(recipe)
    spec = spec_of_recipe(recipe)
    weights = recipe.model.weights
    if weights not in ("auto", "none") and "://" not in weights and not Path(weights).exists():
        raise InputError(f"--weights {weights}: no such file or run")
    if recipe.method == "cascade":
        raise InputError("--method cascade is what `routekit cascade` makes; of one network: --junctions cascade")
    if recipe.method == "dense" and recipe.target is not None:
        raise InputError("--method dense meets no budget: `routekit finetune` trains the network as it is")
    if recipe.method == "routed" and not recipe.junctions:
        raise InputError("a routed network decides something: --junctions skip, exit, branch or cascade")
    if recipe.method != "routed" and (recipe.adaptive_cost is not None or recipe.pruning is not None):
        raise InputError(f"--method {recipe.method} is a static network: it takes no --prune and no --adaptive-cost")
    if recipe.method != "dense":
        if recipe.target is None:
            raise InputError(NO_BUDGET)
        target_of(recipe, build(spec))
    if "branch" in recipe.junctions and recipe.branches.forks and (recipe.pruning is not None or recipe.freezes):
        raise InputError(
            "a tree (branches.forks) grows from a whole network, and all of it learns: not --prune, frozen"
        )
    if recipe.adaptive_cost is not None:
        if "cascade" in recipe.junctions:
            raise InputError("--adaptive-cost needs decisions that learn: not --junctions cascade")
        if {"skip", "branch"} & set(recipe.junctions) and recipe.training.gate != "benefit":
            raise InputError("--adaptive-cost needs routers that learn what a unit is worth: --gate benefit")
        if "exit" in recipe.junctions and recipe.exits.rule != "learned":
            raise InputError(f"--adaptive-cost needs exits that learn: not --policy {recipe.exits.rule}")


def _check_smaller(recipe: Recipe) -> None:
    """Raise InputError for smaller networks that are not there, or do not bring the cost where it should be."""
    if recipe.method != "routed" or recipe.junctions != ["cascade"]:
        raise InputError("--smaller makes a cascade of whole networks: --junctions cascade alone, --prune or not")
    if recipe.target is None:
        raise InputError(NO_BUDGET)
    least, *others = map(_mean_cost, recipe.smaller)
    whole = _dense_cost(recipe)
    most = least + sum(others) + (whole if recipe.pruning is None else pruned_to(recipe, whole))
    target = parse_amount(recipe.target, whole)
    if not least <= target <= most:
        raise InputError(
            f"{describe(target)} is out of reach: this cascade can cost from {describe(least)}, the smallest network "
            f"alone, to {describe(most)}"
        )


def _mean_cost(path: str) -> float:
    """What an image costs in a network that is done, MACs."""
    record = read_spec(network_folder(Path(path)))["about"].get("record")
    if record is None:
        raise InputError(f"--smaller {path}: nothing says what it costs; give the run that it came from")
    return float(record["flops"]["realized"])


def dense_of(recipe: Recipe, *, untrained: bool) -> Recipe:
    """The recipe of the dense network that a recipe begins with: as it is, or trained first."""
    training = recipe.dense if untrained else replace(recipe.dense, epochs=0)
    return recipe.model_copy(update=static("dense") | {"target": None, "training": training})


def last_of(recipe: Recipe, *, untrained: bool = False) -> Recipe:
    """The recipe of the network behind the smaller ones: pruned half-way to the budget, or the dense one."""
    if recipe.pruning is None:
        return dense_of(recipe, untrained=untrained)
    whole = _dense_cost(recipe)
    left = f"{100 * pruned_to(recipe, whole) / whole:.2f}%"
    return recipe.model_copy(update=static(recipe.pruning.method) | {"target": left})


def target_of(recipe: Recipe, view: Backbone) -> float:
    """The budget in MACs; for routers it has to lie above what asking all of them costs."""
    assert recipe.target is not None
    dense_costs = CostModel.measure(dense(view))
    whole = dense_costs.dense
    if recipe.method in prunings:
        target = parse_amount(recipe.target, whole)
        check_prunable(view, recipe.method, target)
        return target
    if recipe.method != "routed":
        return parse_target(recipe.target, dense_costs)
    pruned = recipe.pruning is not None
    return parse_target(
        recipe.target, CostModel.measure(routed(recipe, copy.deepcopy(view), whole)), dense=whole if pruned else None
    )


def settled(recipe: Recipe) -> Recipe:
    """The recipe as it is carried out: without its pruning, if that is for smaller budgets only.

    Raises InputError for a network or a budget that cannot be.
    """
    if recipe.pruning is None or recipe.target is None or recipe.method != "routed":
        return recipe
    whole = _dense_cost(recipe)
    if parse_amount(recipe.target, whole) < recipe.prunes_below * whole:
        return recipe
    return recipe.model_copy(update={"pruning": None})


def _dense_cost(recipe: Recipe) -> float:
    """What the recipe's network costs as it is, MACs."""
    return _dense_cost_of(spec_of_recipe(recipe))


@cache
def _dense_cost_of(spec: ModelSpec) -> float:
    return CostModel.measure(dense(build(spec))).dense


def pruned_to(recipe: Recipe, whole: float) -> float:
    """What the recipe's pruning leaves of `whole` MACs: half-way to the budget, unless it says how much."""
    assert recipe.pruning is not None
    assert recipe.target is not None
    if recipe.pruning.target != AUTO:
        return parse_amount(recipe.pruning.target, whole)
    return math.sqrt(parse_amount(recipe.target, whole) * whole)


def routed(recipe: Recipe, view: Backbone, whole: float | None = None) -> RoutedNetwork:
    """Convert a dense network as the recipe says, pruned first if it says so; else exact until it is trained.

    `whole` is what it costs as it is, MACs, where that is known.
    """
    assert recipe.target is not None
    whole = whole or CostModel.measure(dense(view)).dense
    target, left = parse_amount(recipe.target, whole), whole
    if recipe.pruning is not None:
        left = pruned_to(recipe, whole)
        view = prune(view, recipe.pruning.method, left, recipe.seed)
    budget = target / left
    exits = {"cascade": recipe.cascade.exits(budget, view), "exit": [recipe.exits]}
    prices = recipe.adaptive_cost
    if prices is not None and ("exit" in recipe.junctions or not prices.is_open):
        prices = prices.sized(left, recipe.objective.error_scale)
    return convert(
        view,
        recipe.routers,
        exits=[config for kind, configs in exits.items() if kind in recipe.junctions for config in configs],
        branches=recipe.branches.sized(budget) if "branch" in recipe.junctions else None,
        skips="skip" in recipe.junctions,
        dial=prices,
    )


def load_splits(recipe: Recipe, input_size: tuple[int, int, int]) -> DataSplits:
    """Load the recipe's images at the network's input size."""
    data = recipe.data
    return load_data(
        data.source,
        data_root=Path(data.root) if data.root else None,
        download=data.download,
        val=Path(data.val) if data.val else None,
        val_from_test=data.val_from_test,
        seed=recipe.seed,
        input_size=input_size,
        fill=data.fill,
    )


def load_inputs(recipe: Recipe, hooks: Hooks) -> Inputs:
    """Load images and network, and tell the user what had to be replaced.

    Raises InputError for data, weights or a run that are not there or do not fit.
    """
    data = load_splits(recipe, spec_of_recipe(recipe).input_size)
    for warning in data.warnings:
        hooks.warn(warning)
    weights = recipe.model.weights
    if Path(weights).is_dir():
        return Inputs(data, view_of_run(Path(weights), recipe, data.classes), untrained=False)
    if weights == "auto" and not _fits(recipe, data):
        weights = "none"
    # New layers are drawn from the global generator.
    torch.manual_seed(step_seed(recipe.seed, 0))
    size = spec_of_recipe(recipe).input_size
    view = load_backbone(recipe.model.name, weights=weights, num_classes=len(data.classes), input_size=size)
    for note in view.notes:
        hooks.say(note)
    return Inputs(data, view, untrained=weights == "none" or bool(view.notes))


def view_of_run(path: Path, recipe: Recipe, classes: Sequence[str]) -> Backbone:
    """The dense network that an earlier run left. Raises InputError for another one, or one of other classes."""
    network = load_network(path)
    spec = network.view.spec
    name = spec_of(recipe.model.name).full_name
    if spec.full_name != name:
        raise InputError(f"{path} holds {spec.full_name}, not {name}")
    check_classes(path, spec.num_classes, read_spec(network_folder(path))["about"], classes)
    if not isinstance(network.routers, FixedRoute) or not bool(network.routers.route.all()):
        raise InputError(f"{path} is not a dense network: convert starts from one (`routekit finetune`)")
    return network.view


def check_classes(path: Path, count: int, about: dict[str, Any], classes: Sequence[str]) -> None:
    """Raise InputError unless the network of `path` knows the `classes` of the data, by name where it knows names."""
    if count != len(classes):
        raise InputError(f"{path} was trained for {count} classes, the data has {len(classes)}")
    known = about.get("classes") or classes
    differs = next((pair for pair in zip(known, classes, strict=True) if pair[0] != pair[1]), None)
    if differs is not None:
        raise InputError(f"{path} was trained for other classes: {differs[0]!r} is where the data has {differs[1]!r}")


def spec_of_recipe(recipe: Recipe) -> ModelSpec:
    """The architecture that a recipe names, at its images' size."""
    size = recipe.data.input_size
    return spec_of(recipe.model.name, input_size=None if size is None else (3, size, size))


def _fits(recipe: Recipe, data: DataSplits) -> bool:
    """Whether the source's own weights say anything about this data: CIFAR networks know CIFAR-10 alone."""
    if resolve(recipe.model.name)[0] == "cifar":
        return data.name == "cifar10" and tuple(data.classes) == CIFAR10 and has_published_weights(recipe.model.name)
    return has_published_weights(recipe.model.name)
