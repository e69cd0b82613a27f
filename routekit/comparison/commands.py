"""The command that makes a cell's network by itself, as a user would type it."""

import shlex
from typing import Any

import yaml

from routekit.comparison.method import DENSE, SYSTEMS, settings
from routekit.comparison.plan import PRUNED_TO, Cell, Plan
from routekit.pipeline.plan import lengths_of
from routekit.recipe import load_recipe

# Settings that have an option of their own; all others are given by --set.
OPTIONS = {
    "model.weights": "--weights",
    "data.source": "--data",
    "data.root": "--data-root",
    "data.val": "--val",
    "data.val_from_test": "--val-from-test",
    "training.epochs": "--epochs",
    "method": "--method",
    "junctions": "--junctions",
    "junctions.exit.rule": "--policy",
    "pruning": "--prune",
    "target": "--target-flops",
}
# What a method does not set is left out of its command: a named method, or named junctions, need no more.
LEFT_OUT = ("junctions", "pruning", "smaller")


def command_of(plan: Plan, cell: Cell) -> str:
    """Write the command of a cell.

    Args:
        plan: The plan of the comparison.
        cell: The cell.

    Returns:
        One line for a shell.
    """
    shared = dict(plan.shared)
    model = str(shared.pop("model.name"))
    if cell.given:
        return shlex.join(["routekit", "evaluate", plan.run_of(cell)])
    chosen = settings(cell.method, cell.budget)
    if not chosen.get("pruning"):
        shared.pop(PRUNED_TO, None)
    values = shared | {name: value for name, value in chosen.items() if value or name not in LEFT_OUT}
    if values.get("method") in ("dense", "routed"):
        values.pop("method")
    verb, recipe = "convert", plan.base
    if cell.method == DENSE:
        # `finetune` trains by the recipe's `dense` section, a comparison by its `training` section.
        verb, whole = "finetune", load_recipe(plan.base, plan.shared).model_dump(mode="json")
        others = {name: value for name, value in whole["training"].items() if value != whole["dense"][name]}
        values = {f"training.{name}": value for name, value in others.items()} | values
    if cell.method in SYSTEMS:
        recipe = cell.method
        values |= lengths_of(load_recipe(plan.base, plan.shared))
    if verb == "convert":
        # --epochs shortens the training of a dense network, too, where that is not said.
        own, epochs = load_recipe(recipe).dense.epochs, values.get("training.epochs")
        said, wanted = epochs if epochs and epochs < own else own, plan.recipe(cell).dense.epochs
        values = {name: value for name, value in values.items() if name != "dense.epochs"}
        values |= {"dense.epochs": wanted} if wanted != said else {}
    line = ["routekit", verb, model, "--recipe", recipe]
    for name, value in values.items():
        if value is not None:
            line += _options(name, value)
    if cell.joined:
        for path in plan.smaller:
            line += ["--smaller", path]
    return shlex.join([*line, "--seed", str(cell.seed)])


def _options(name: str, value: Any) -> list[str]:
    """The options that set a setting."""
    if name == "data.download":
        return ["--download"]
    if name == "pruning":
        value = ":".join(value[part] for part in ("method", "target") if part in value)
    if name == "junctions":
        rules = [_options(f"junctions.{kind}.rule", each["rule"]) for kind, each in value.items() if "rule" in each]
        return [OPTIONS[name], ",".join(value), *(part for rule in rules for part in rule)]
    if name in OPTIONS:
        return [OPTIONS[name], str(value)]
    return ["--set", f"{name}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"]
