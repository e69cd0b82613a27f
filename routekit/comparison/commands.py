"""The command that makes a cell's network by itself, as a user would type it."""

import shlex
from typing import Any

import yaml

from routekit.comparison.method import DENSE, DRN, SMALLER, settings
from routekit.comparison.plan import PRUNED_TO, Cell, Plan
from routekit.pipeline.plan import lengths_of
from routekit.recipe import load_recipe

# Settings that have an option of their own; all others are told by --set.
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


# What is nothing where a method does not say it.
LEFT_OUT = ("junctions", "pruning", "smaller")


def command_of(plan: Plan, cell: Cell) -> str:
    """One line for a shell."""
    shared = dict(plan.shared)
    model = str(shared.pop("model.name"))
    if cell.method.startswith(SMALLER):
        return shlex.join(["routekit", "evaluate", plan.smaller[int(cell.method.removeprefix(SMALLER))]])
    chosen = settings(cell.method, cell.budget)
    if not chosen.get("pruning"):
        shared.pop(PRUNED_TO, None)
    # A method, or junctions, that are named stand alone: what else the recipe says need not be taken back.
    values = shared | {name: value for name, value in chosen.items() if value or name not in LEFT_OUT}
    recipe = DRN if cell.method == DRN else plan.base
    if cell.method == DENSE:
        # `finetune` trains as the recipe's `dense` says, a comparison as its `training` does, like all the others.
        whole = load_recipe(plan.base, plan.shared).model_dump(mode="json")
        others = {name: value for name, value in whole["training"].items() if value != whole["dense"][name]}
        values = {f"training.{name}": value for name, value in others.items()} | values
    if values.get("method") in ("dense", "routed"):
        values.pop("method")
    if cell.method == DRN:
        values |= lengths_of(load_recipe(plan.base, plan.shared))
    smaller = [part for path in plan.smaller if cell.joined for part in ("--smaller", path)]
    line = ["routekit", "finetune" if cell.method == DENSE else "convert", model, "--recipe", recipe]
    for name, value in values.items():
        if value is not None:
            line += _told(name, value)
    return shlex.join([*line, *smaller, "--seed", str(cell.seed)])


def _told(name: str, value: Any) -> list[str]:
    if name == "data.download":
        return ["--download"]
    if name == "pruning":
        value = ":".join(value[part] for part in ("method", "target") if part in value)
    elif name == "junctions":
        rules = [
            part for kind, each in value.items() for part in _told(f"junctions.{kind}.rule", each.get("rule")) if each
        ]
        return ["--junctions", ",".join(value), *rules]
    if name in OPTIONS:
        return [OPTIONS[name], str(value)]
    return ["--set", f"{name}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"]
