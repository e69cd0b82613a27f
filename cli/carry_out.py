"""Carry out one training run, a new one or one that was stopped, and print what came of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from . import options as o
from .output import TrainingDisplay, result, say, warn
from .summary import summary

if TYPE_CHECKING:
    from routekit.recipe import Recipe


def carry_out(recipe: "Recipe | None", path: Path, device: str | None, *, force: bool, json: bool) -> None:
    """Run `recipe` in a new folder at `path`, or go on with the run that is there if it is None.

    Shows the training steps while they happen, says how to go on when interrupted, and at the end what to be wary of.
    """
    from routekit.pipeline.train import resume, run
    from routekit.report.findings import warnings

    with TrainingDisplay() as display:
        machine = o.machine(device, display)
        try:
            record = resume(path, machine) if recipe is None else run(recipe, path, machine, force=force)
        except KeyboardInterrupt:
            if (path / "recipe.yaml").exists():
                say(f"what was trained is kept: go on with `routekit convert --resume {path}`")
            raise
    if record:  # of several processes, the first one has it
        result(record, summary(record), as_json=json)
        for sentence in warnings(record):
            warn(sentence)
