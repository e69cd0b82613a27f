"""`resolve`: from a recipe to the plan of a run. What is open is decided here; nothing below reads a recipe."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from routekit.backbones.load import spec_of
from routekit.backbones.unit import ModelSpec
from routekit.cost.aim import Aim
from routekit.cost.target import parse_amount
from routekit.data.mixture import anchored, folders_of
from routekit.errors import InputError
from routekit.network.deciders import LEARNED
from routekit.network.pricing import AUTO, PriceRange
from routekit.pipeline.forms import forms_of
from routekit.pipeline.reach import built, dense_cost, reach_of
from routekit.pipeline.run_plan import Facts, Pruned, RunPlan
from routekit.recipe import DataSection, Recipe, static


def resolve(recipe: Recipe, facts: Facts | None = None) -> RunPlan:
    """Decide all that a recipe leaves open: percentages, "auto", pruning, junctions. `check_reach` checks the target.

    Args:
        recipe: The choices.
        facts: What is known of the data and the weights. None: nothing yet.

    Returns:
        The plan.

    Raises:
        InputError: There is no such network, there are no such weights, or settings do not go together.
    """
    facts = facts or Facts()
    _check_words(recipe)
    spec = _spec_of_recipe(recipe, facts.classes)
    whole, notes = dense_cost(spec), list[str]()
    target = None if recipe.target is None else parse_amount(recipe.target, whole)
    aim = _aim(recipe, target)
    pruned = _pruned_to(recipe, target, whole, notes)
    second_look = _looks_again(recipe, target, whole, facts, notes)
    left = whole if pruned is None else pruned.cost
    budget = 0.5 if target is None else target / left
    configs = {kind: each.sized(budget, built(spec)) for kind, each in recipe.junctions.items() if kind != "again"}
    untrained = facts.untrained and recipe.method != "dense"
    from_scratch = untrained and recipe.dense.epochs == 0
    if (recipe.smaller or recipe.method == "ladder") and from_scratch:
        raise InputError("the networks would come from no dense one: dense.epochs is 0")
    return RunPlan(
        model=spec.full_name if spec.source == "custom" else recipe.model.name,
        weights=_path(recipe.model.weights),
        spec=spec,
        data=_anchored(recipe.data),
        method=recipe.method,
        dense_cost=whole,
        target=target,
        aim=aim,
        forms=[] if aim is None else forms_of(recipe.ladder, spec, whole, recipe.training.epochs, notes),
        pruned=pruned,
        junctions={} if recipe.smaller else configs,
        routers=recipe.routers,
        prices=_prices(recipe, left),
        second_look=second_look,
        smaller=[_path(each) for each in recipe.smaller],
        rule=getattr(recipe.junctions.get("cascade"), "rule", "confidence"),
        inference=recipe.inference,
        objective=recipe.objective,
        training=replace(recipe.training, frozen=_freezes(recipe, second_look, pruned) and not from_scratch),
        dense=recipe.dense,
        dense_first=untrained and not from_scratch,
        from_scratch=from_scratch,
        seed=recipe.seed,
        notes=notes,
    )


def _anchored(data: DataSection) -> DataSection:
    """The same images from any working folder: a run is finished, and used, wherever its user is then."""
    root, val = (None if each is None else _path(each) for each in (data.root, data.val))
    return data.model_copy(update={"source": anchored(data.source), "root": root, "val": val})


def _path(name: str) -> str:
    """A path, whole if something is there: else it is a word, or a URL."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def check_reach(plan: RunPlan, recipe: Recipe) -> None:
    """Check that the network of a plan can meet its target. This builds the network, and takes seconds.

    Args:
        plan: The plan.
        recipe: The recipe of the plan, for the words of the error.

    Raises:
        OutOfReachError: The target is under the least or over the greatest cost.
        InputError: A junction or a pruning does not fit the network.
    """
    if plan.target is not None and plan.aim is None:
        reach_of(plan).check(plan.target, f"target {recipe.target} = ")


def check_recipe(recipe: Recipe) -> None:
    """Check all of a recipe that can be checked without its images. This builds the network.

    Args:
        recipe: The recipe. Without a target, one is taken that most networks can meet, to check the rest.

    Raises:
        InputError: A run of it would be refused, whatever the images.
    """
    aimed = any((recipe.target, recipe.aim.ms, recipe.aim.speedup, recipe.aim.max_drop, recipe.method == "dense"))
    plan = resolve(recipe if aimed else recipe.model_copy(update={"target": "70%"}))
    if plan.target is not None and plan.aim is None:
        reach = reach_of(plan)
        if recipe.target is not None:
            reach.check(plan.target, f"target {recipe.target} = ")


def _aim(recipe: Recipe, target: float | None) -> Aim | None:
    """The aim of a ladder; None for other methods. Raises InputError: none, or several."""
    if recipe.method != "ladder":
        return None
    aim = recipe.aim if target is None else replace(recipe.aim, macs=target)
    aim.check()
    return aim


def _spec_of_recipe(recipe: Recipe, classes: int | None) -> ModelSpec:
    """The architecture that a recipe names, with the preprocessing that it asks for."""
    size, data = recipe.data.input_size, recipe.data
    spec = spec_of(recipe.model.name, num_classes=classes, input_size=None if size is None else (3, size, size))
    channels = spec.input_size[0]
    for name, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) not in (1, channels):
            raise InputError(f"data.{name} has {len(values)} values, the images {channels} channels")
    return replace(spec, **data.model_dump(include={"mean", "std", "crop", "interpolation"}, exclude_none=True))


def _pruned_to(recipe: Recipe, target: float | None, whole: float, notes: list[str]) -> Pruned | None:
    """How the network is pruned before it is routed: half-way to the budget, unless the recipe has a cost for it."""
    pruning = recipe.pruning
    if pruning is None or target is None:
        return None
    # More images can go on to a pruned network: with a ResNet-56 at 40% to 60% (reports/README.md) that was 0.15 to
    # 0.3 points better than with the network as it is, less than two standard errors. For larger budgets it is a guess.
    below = 1.0 if recipe.smaller else pruning.below
    if target >= below * whole:
        notes.append(f"not pruned: that is for budgets under {below:.0%} (pruning.below)")
        return None
    cost = math.sqrt(target * whole) if pruning.target == AUTO else parse_amount(pruning.target, whole)
    if cost >= whole:
        raise InputError(f"pruning={pruning.method}:{pruning.target} leaves the network whole")
    return Pruned(method=pruning.method, cost=cost)


def _looks_again(recipe: Recipe, target: float | None, whole: float, facts: Facts, notes: list[str]) -> bool:
    """Whether a second look is tried. It is not where it cannot pay."""
    if "again" not in recipe.junctions or recipe.method != "routed" or recipe.smaller:
        return False
    pruning = recipe.pruning
    if pruning is not None and target is not None and target < pruning.below * whole and pruning.below < 1:
        # It is pruned because few images could get to the end: there is nothing to spend on looking at them twice.
        notes.append(f"does not look again: not for budgets under {pruning.below:.0%} (pruning.below)")
        return False
    if not facts.mirrored:
        notes.append(f"does not look again: images of {recipe.data.source} are not mirrored in training, either")
    return facts.mirrored


def _freezes(recipe: Recipe, second_look: bool, pruned: Pruned | None) -> bool:
    """Whether the network's own weights stay as they are: where all that is added has weights of its own."""
    if recipe.training.frozen is not None or recipe.method == "ladder":  # its teacher stays as it is
        return recipe.training.frozen is not False
    if recipe.method != "routed" or pruned is not None or recipe.smaller:  # what was pruned has to recover
        return False
    added = [junction for kind, junction in recipe.junctions.items() if kind != "again" or second_look]
    return bool(added) and all(each.learns == "added" and getattr(each, "own", True) for each in added)


def _prices(recipe: Recipe, left: float) -> PriceRange | None:
    """The prices of computing, in the loss per MAC; open ones stay so where exits do not need them."""
    prices = recipe.adaptive_cost
    if prices is None or (prices.is_open and not any(each.policies for each in recipe.junctions.values())):
        return prices
    # What units are worth is learned from all that is minimised; exits go by cross-entropy alone.
    units = any(each.rank == 0 for each in recipe.junctions.values())
    return prices.sized(left, recipe.objective.error_scale if units else 1.0)


def run_name(plan: RunPlan, recipe: Recipe) -> str:
    """The name of a run's folder: what most often tells runs apart.

    Args:
        plan: The plan of the run.
        recipe: Its recipe.

    Returns:
        The name, for example `resnet56-images-l1+cascade-40pct-seed0`.
    """
    method = [plan.method]
    if plan.method == "routed":
        method = ["cascade"] if plan.smaller else plan.kinds
        if plan.pruned is not None and recipe.pruning is not None:
            to = "" if recipe.pruning.target == AUTO else f":{recipe.pruning.target}"
            method = [plan.pruned.method + to, *method]
        method = [*(Path(path).resolve().name for path in plan.smaller), *method]
    file, _, factory = plan.model.partition(".py:")
    model = Path(file).name + factory if factory else plan.model
    data, adaptive = Path(plan.data.source).name or "data", None if plan.prices is None else "adaptive"
    parts = [model, data, "+".join(method), adaptive, recipe.target, f"seed{plan.seed}"]
    return "-".join(part.replace(":", "-").replace("/", "-").replace("%", "pct") for part in parts if part)


def needed_by(recipe: Recipe) -> list[Path]:
    """The files, runs and folders that a recipe names: its weights first, then its smaller networks, its images."""
    named = [recipe.model.weights, *recipe.smaller, *filter(None, [recipe.data.val])]
    return [*map(Path, named), *folders_of(recipe.data.source)]


def data_of(recipe: Recipe) -> DataSection:
    """Which images a recipe names."""
    return recipe.data


def subject_of(recipe: Recipe) -> dict[str, str]:
    """The network, the images and the weights that a recipe names."""
    return {"network": recipe.model.name, "data": recipe.data.source, "weights": recipe.model.weights}


def lengths_of(recipe: Recipe) -> dict[str, Any]:
    """How long, and in which batches, a recipe trains: what all methods of a comparison share."""
    return {"training.epochs": recipe.training.epochs, "training.batch_size": recipe.training.batch_size}


def dense_recipe(recipe: Recipe, *, train: bool) -> Recipe:
    """The recipe of the dense network with which a recipe begins.

    Args:
        recipe: The recipe.
        train: Whether the dense network is trained first.

    Returns:
        A recipe of the method "dense".
    """
    training = recipe.dense if train else replace(recipe.dense, epochs=0)
    return recipe.model_copy(update=static("dense") | {"target": None, "training": training, "adaptive_cost": None})


def _check_words(recipe: Recipe) -> None:
    """Raise InputError for choices that do not go together, whatever the network."""
    weights, chosen = recipe.model.weights, list(recipe.junctions.values())
    if weights not in ("auto", "none") and "://" not in weights and not Path(weights).exists():
        raise InputError(f"model.weights={weights}: no such file or run")
    given = [name for name, value in asdict(recipe.aim).items() if value != getattr(Aim, name)]
    if recipe.method != "ladder" and given:
        raise InputError(f"aim.{given[0]} is for a ladder of forms (method=ladder), not for method={recipe.method}")
    if recipe.method == "cascade":
        raise InputError("method=cascade is what `routekit cascade` makes; of one network: junctions=cascade")
    if recipe.method == "dense" and recipe.target is not None:
        raise InputError("method=dense meets no budget: `routekit finetune` trains the network as it is")
    if recipe.method == "routed" and not chosen:
        raise InputError("a routed network decides something: junctions=skip, exit, branch or cascade")
    if recipe.method != "routed" and (recipe.adaptive_cost is not None or recipe.pruning is not None):
        raise InputError(f"method={recipe.method} is a static network: it takes no pruning and no adaptive_cost")
    if recipe.method not in ("dense", "ladder") and recipe.target is None:
        raise InputError("which budget? e.g. target=50% (of the dense cost) or target=1.5e8")
    if (
        recipe.smaller
        and recipe.method != "ladder"
        and (recipe.method != "routed" or {*recipe.junctions} - {"again"} != {"cascade"})
    ):
        raise InputError("smaller networks make a cascade of whole networks: junctions=cascade alone, pruned or not")
    for junction in chosen:
        junction.check(chosen)
    at_units = [junction for junction in chosen if junction.rank == 0]
    if at_units:
        recipe.objective.check(recipe.training.copies)
    drawn = {
        "objective.reward": recipe.objective.reward is not None,
        "inference=bernoulli": recipe.inference != "hard" and recipe.method == "routed",
    }
    for name in [name for name, wanted in drawn.items() if wanted]:
        if not any(junction.draws for junction in at_units):
            raise InputError(f"{name} is for units whose decisions can be drawn: junctions=skip or branch")
    if any(junction.halts != (recipe.training.gate == "hard") for junction in at_units):
        raise InputError("junctions=act and sact, and no others, need training.gate=hard: recipe=act or sact sets it")
    if "tree" in recipe.junctions and (recipe.pruning is not None or recipe.training.frozen):
        raise InputError(
            "a tree grows from a whole network, and all of it learns: not with pruning, or training.frozen"
        )
    if recipe.adaptive_cost is not None:
        if any(each.learns == "added" for each in chosen):
            raise InputError("adaptive_cost needs decisions that learn: not junctions=cascade")
        if any(each.rank == 0 for each in chosen) and recipe.training.gate != "benefit":
            raise InputError("adaptive_cost needs routers that learn what a unit is worth: training.gate=benefit")
        rules = [getattr(each, "rule", LEARNED) for each in chosen if each.policies]
        if any(rule != LEARNED for rule in rules):
            raise InputError(f"adaptive_cost needs exits that learn: not junctions.exit.rule={rules[0]}")
