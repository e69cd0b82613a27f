"""`resolve`: what a recipe comes to. All that is left open is decided here, once; nothing below reads a recipe."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from routekit.backbones.load import spec_of
from routekit.backbones.unit import ModelSpec
from routekit.baselines.pruning import prunings
from routekit.cost.target import Reach, parse_amount
from routekit.errors import InputError
from routekit.network.deciders import LEARNED
from routekit.network.pricing import AUTO, PriceRange
from routekit.pipeline.reach import dense_cost, reach_of, sized, smaller_reach
from routekit.pipeline.run_plan import Facts, Pruned, RunPlan
from routekit.recipe import DataSection, Recipe, static

NO_BUDGET = "which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8"


def resolve(recipe: Recipe, facts: Facts | None = None) -> RunPlan:
    """Decide all that a recipe leaves open: percentages, what is "auto", what is pruned to what, which junctions.

    Args:
        recipe: The choices.
        facts: What is known of the data and the weights. None: nothing yet; the plan is what can be said without.

    Returns:
        The plan.

    Raises:
        InputError: A network, weights, a budget, or settings that cannot be.
    """
    facts = facts or Facts()
    check_words(recipe)
    spec = spec_of_recipe(recipe, facts.classes)
    whole, notes = dense_cost(spec), list[str]()
    target = None if recipe.target is None else parse_amount(recipe.target, whole)
    pruned = pruned_to(recipe, target, whole, notes)
    kinds = _kinds(recipe, target, whole, facts, notes)
    left = whole if pruned is None else pruned.cost
    budget = 0.5 if target is None else target / left
    configs = {kind: sized(spec, recipe.junctions[kind], budget) for kind in kinds if kind != "again"}
    from_scratch = facts.untrained and recipe.dense.epochs == 0 and recipe.method != "dense"
    if recipe.smaller and from_scratch:
        raise InputError("the last network of this cascade would come from no dense one: dense.epochs is 0")
    cascade = recipe.junctions.get("cascade")
    plan = RunPlan(
        model=spec.full_name if spec.source == "custom" else recipe.model.name,
        weights=recipe.model.weights,
        spec=spec,
        data=recipe.data,
        method=recipe.method,
        dense_cost=whole,
        target=target,
        pruned=pruned,
        junctions={} if recipe.smaller else configs,
        routers=recipe.routers,
        prices=_prices(recipe, left),
        second_look="again" in kinds,
        smaller=recipe.smaller,
        rule=getattr(cascade, "rule", "confidence"),
        inference=recipe.inference,
        objective=recipe.objective,
        training=replace(recipe.training, frozen=_freezes(recipe, kinds, pruned) and not from_scratch),
        dense=recipe.dense,
        dense_first=facts.untrained and recipe.method != "dense" and not from_scratch,
        from_scratch=from_scratch,
        seed=recipe.seed,
        notes=notes,
    )
    if target is not None and recipe.method != "cascade":
        _reach(plan).check(target, f"target {recipe.target} = ")
    return plan


def spec_of_recipe(recipe: Recipe, classes: int | None = None) -> ModelSpec:
    """The architecture that a recipe names, with the preprocessing that it asks for."""
    size, data = recipe.data.input_size, recipe.data
    spec = spec_of(recipe.model.name, num_classes=classes, input_size=None if size is None else (3, size, size))
    given: dict[str, Any] = {"mean": data.mean, "std": data.std, "crop": data.crop, "interpolation": data.interpolation}
    channels = spec.input_size[0]
    for name in ("mean", "std"):
        if given[name] is not None and len(given[name]) not in (1, channels):
            raise InputError(f"data.{name} has {len(given[name])} values, the images {channels} channels")
    values = {name: value for name, value in given.items() if value is not None}
    return replace(spec, **values)


def pruned_to(recipe: Recipe, target: float | None, whole: float, notes: list[str]) -> Pruned | None:
    """What is pruned to what before it is routed: half-way to the budget, unless the recipe says how much."""
    pruning = recipe.pruning
    if pruning is None or target is None or recipe.method != "routed":
        return None
    # More images can go on to a pruned network: with a ResNet-56 at 40% to 60% (reports/README.md) that was 0.15 to
    # 0.3 points better than with the network as it is, less than two standard errors. For larger budgets it is a guess.
    below = 1.0 if recipe.smaller else pruning.below
    if target >= below * whole:
        notes.append(f"not pruned: that is for budgets under {below:.0%} (pruning.below)")
        return None
    if pruning.target == AUTO:
        return Pruned(method=pruning.method, cost=math.sqrt(target * whole))
    left = parse_amount(pruning.target, whole)
    if left >= whole:
        raise InputError(f"--prune {pruning.method}:{pruning.target} leaves the network whole")
    return Pruned(method=pruning.method, cost=left)


def _kinds(recipe: Recipe, target: float | None, whole: float, facts: Facts, notes: list[str]) -> list[str]:
    """Which kinds of junctions there are; a second look is left out where it cannot pay."""
    kinds = list(recipe.junctions)
    if "again" not in kinds or recipe.method != "routed":
        return kinds
    once = [kind for kind in kinds if kind != "again"]
    pruning = recipe.pruning
    if recipe.smaller:
        return once
    if pruning is not None and target is not None and target < pruning.below * whole and pruning.below < 1:
        # It is pruned because few images could get to the end: there is nothing to spend on looking at them twice.
        notes.append(f"does not look again: not for budgets under {pruning.below:.0%} (pruning.below)")
        return once
    if not facts.mirrored:
        notes.append(f"does not look again: images of {recipe.data.source} are not mirrored in training, either")
        return once
    return kinds


def _freezes(recipe: Recipe, kinds: Sequence[str], pruned: Pruned | None) -> bool:
    """Whether the network's own weights stay as they are: where all that is added has weights of its own."""
    if recipe.training.frozen is not None:
        return recipe.training.frozen
    if recipe.method != "routed" or pruned is not None or recipe.smaller:  # what was pruned has to recover
        return False
    added = [recipe.junctions[kind] for kind in kinds]
    return bool(added) and all(each.learns == "added" and getattr(each, "own", True) for each in added)


def _prices(recipe: Recipe, left: float) -> PriceRange | None:
    prices = recipe.adaptive_cost
    if prices is None or (prices.is_open and not any(each.policies for each in recipe.junctions.values())):
        return prices
    # What units are worth is learned from all that is minimised; exits go by cross-entropy alone.
    units = any(each.rank == 0 for each in recipe.junctions.values())
    return prices.sized(left, recipe.objective.error_scale if units else 1.0)


def _reach(plan: RunPlan) -> Reach:
    if plan.smaller:
        last = plan.dense_cost if plan.pruned is None else plan.pruned.cost
        return smaller_reach(plan.smaller, last, plan.dense_cost)
    if plan.method in prunings:
        return reach_of(plan.spec, plan.method)
    pruned = None if plan.pruned is None else (plan.pruned.method, plan.pruned.cost)
    return reach_of(plan.spec, plan.method, plan.junctions, plan.routers, plan.prices, pruned)


def run_name(plan: RunPlan, recipe: Recipe) -> str:
    """A folder's name made of what most often tells runs apart."""
    data, pruning = Path(plan.data.source).name or "data", recipe.pruning
    to = [] if pruning is None or pruning.target == AUTO else [pruning.target]
    pruned = [] if plan.pruned is None else [":".join([plan.pruned.method, *to])]
    smaller = [Path(path).resolve().name for path in plan.smaller]
    kinds = ["cascade"] if plan.smaller else plan.kinds
    method = "+".join([*smaller, *pruned, *kinds]) if plan.method == "routed" else plan.method
    adaptive = "adaptive" if plan.prices is not None else None
    model = (
        Path(plan.model.partition(":")[0]).stem + plan.model.partition(":")[2] if ".py:" in plan.model else plan.model
    )
    parts = [model, data, method, adaptive, recipe.target, f"seed{plan.seed}"]
    return "-".join(part.replace(":", "-").replace("/", "-").replace("%", "pct") for part in parts if part)


def needed_by(recipe: Recipe) -> list[str]:
    """The files and runs that a recipe names."""
    return [recipe.model.weights, *recipe.smaller]


def data_of(recipe: Recipe) -> DataSection:
    """Which images a recipe names."""
    return recipe.data


def subject_of(recipe: Recipe) -> dict[str, str]:
    """The network, the images and the weights that a recipe names."""
    return {"network": recipe.model.name, "data": recipe.data.source, "weights": recipe.model.weights}


def lengths_of(recipe: Recipe) -> dict[str, Any]:
    """For how long, and in which batches, a recipe trains: what all methods of a comparison share."""
    return {"training.epochs": recipe.training.epochs, "training.batch_size": recipe.training.batch_size}


def dense_recipe(recipe: Recipe, *, train: bool) -> Recipe:
    """The recipe of the dense network that a recipe begins with: trained first, or as it is."""
    training = recipe.dense if train else replace(recipe.dense, epochs=0)
    return recipe.model_copy(update=static("dense") | {"target": None, "training": training, "adaptive_cost": None})


def check_words(recipe: Recipe) -> None:
    """Raise InputError for choices that do not go together, whatever the network."""
    weights, chosen = recipe.model.weights, list(recipe.junctions.values())
    if weights not in ("auto", "none") and "://" not in weights and not Path(weights).exists():
        raise InputError(f"--weights {weights}: no such file or run")
    if recipe.method == "cascade":
        raise InputError("--method cascade is what `routekit cascade` makes; of one network: --junctions cascade")
    if recipe.method == "dense" and recipe.target is not None:
        raise InputError("--method dense meets no budget: `routekit finetune` trains the network as it is")
    if recipe.method == "routed" and not chosen:
        raise InputError("a routed network decides something: --junctions skip, exit, branch or cascade")
    if recipe.method != "routed" and (recipe.adaptive_cost is not None or recipe.pruning is not None):
        raise InputError(f"--method {recipe.method} is a static network: it takes no --prune and no --adaptive-cost")
    if recipe.method not in ("dense", "cascade") and recipe.target is None:
        raise InputError(NO_BUDGET)
    if recipe.smaller and (recipe.method != "routed" or {*recipe.junctions} - {"again"} != {"cascade"}):
        raise InputError("--smaller makes a cascade of whole networks: --junctions cascade alone, --prune or not")
    for junction in chosen:
        junction.check(chosen)
    if "tree" in recipe.junctions and (recipe.pruning is not None or recipe.training.frozen):
        raise InputError("a tree grows from a whole network, and all of it learns: not --prune, frozen")
    if recipe.adaptive_cost is not None:
        if any(each.learns == "added" for each in chosen):
            raise InputError("--adaptive-cost needs decisions that learn: not --junctions cascade")
        if any(each.rank == 0 for each in chosen) and recipe.training.gate != "benefit":
            raise InputError("--adaptive-cost needs routers that learn what a unit is worth: --gate benefit")
        rules = [getattr(each, "rule", LEARNED) for each in chosen if each.policies]
        if any(rule != LEARNED for rule in rules):
            raise InputError(f"--adaptive-cost needs exits that learn: not --policy {rules[0]}")
