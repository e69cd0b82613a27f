"""What cannot be, found in a recipe alone: before anything is loaded or written."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from routekit.backbones.load import build
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.baselines.pruning import prune
from routekit.cost.budget import Reach
from routekit.errors import InputError
from routekit.export.checkpoint import network_folder, read_spec
from routekit.network.exits import END
from routekit.pipeline.build import dense_cost, last_of, looking_once, pruned_to, reach_of, spec_of_recipe
from routekit.recipe import Recipe

NO_BUDGET = "which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8"


def check(recipe: Recipe) -> None:
    """Raise InputError for a network, weights or a budget that cannot be, before anything is loaded or written."""
    if recipe.smaller:
        _check_smaller(recipe)
        recipe = last_of(recipe)
    spec_of_recipe(recipe)  # raises for a network that there is not
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
    if END in (recipe.exits.at, recipe.cascade.at):
        raise InputError(f"an exit at: {END} is made by --junctions again, and not by settings")
    if "again" in recipe.junctions:
        rules = {"cascade": recipe.cascade.rule, "exit": recipe.exits.rule}
        decided = [rules.get(kind, "learned") for kind in recipe.junctions if kind != "again"]
        if not decided or "learned" in decided:
            raise InputError(
                "--junctions again joins what is decided by certainty: cascade,again, or exit,again with --policy "
                "confidence or entropy; --junctions without it does not look again"
            )
    if recipe.method != "dense":
        if recipe.target is None:
            raise InputError(NO_BUDGET)
        _reach(_shape_of(recipe)).meet(recipe.target)
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


def _shape_of(recipe: Recipe) -> str:
    """All that says what the recipe's network can cost: recipes that are alike in it are measured once."""
    sized = recipe.pruning is not None or {"branch", "cascade"} & set(recipe.junctions) or recipe.adaptive_cost
    # Narrow forms, and what is pruned, are as large as the budget lets them; others are as they are for any budget.
    values: dict[str, Any] = {
        "target": recipe.target if sized else "100%",
        "seed": 0,
        "training": {},
        "dense": {},
        "inference": "hard",
    }
    values |= {"model": {"name": recipe.model.name}, "data": {"input_size": recipe.data.input_size}}
    return json.dumps(recipe.model_dump(mode="json") | values, sort_keys=True)


@cache
def _reach(shape: str) -> Reach:
    recipe = Recipe.model_validate_json(shape)
    spec = spec_of_recipe(recipe)
    if recipe.pruning is None or recipe.method != "routed":
        return reach_of(recipe, build(spec))
    pruned = _pruned(spec, recipe.pruning.method, pruned_to(recipe, dense_cost(recipe)))
    return reach_of(recipe, build(spec), copy.deepcopy(pruned))


@cache
def _pruned(spec: ModelSpec, method: str, left: float) -> Backbone:
    return prune(build(spec), method, left)


def _check_smaller(recipe: Recipe) -> None:
    """Raise InputError for smaller networks that are not there, or do not bring the cost where it should be."""
    if recipe.method != "routed" or looking_once(recipe).junctions != ["cascade"]:
        raise InputError("--smaller makes a cascade of whole networks: --junctions cascade alone, --prune or not")
    if recipe.target is None:
        raise InputError(NO_BUDGET)
    least, *others = map(_mean_cost, recipe.smaller)
    whole = dense_cost(recipe)
    most = least + sum(others) + (whole if recipe.pruning is None else pruned_to(recipe, whole))
    Reach(least, most, whole, "the smallest network alone", "all of its networks", who="this cascade").meet(
        recipe.target
    )


def _mean_cost(path: str) -> float:
    """What an image costs in a network that is done, MACs."""
    record = read_spec(network_folder(Path(path)))["about"].get("record")
    if record is None:
        raise InputError(f"--smaller {path}: nothing says what it costs; give the run that it came from")
    return float(record["flops"]["realized"])
