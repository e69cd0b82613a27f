"""Carry out one training run, a new one or one that was stopped, and print what came of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as o
from .output import TrainingDisplay, result, say, warn
from .summary import summary

if TYPE_CHECKING:
    from routekit.recipe import Recipe


def carry_out(
    recipe: "Recipe", out: Path, name: str | None, device: str | None, *, force: bool, dry_run: bool, json: bool
) -> None:
    """Carry out `recipe` in a new folder in `out`; a dry run prints its plan alone.

    Shows the training steps while they happen, says how to go on when interrupted, and at the end what to be wary of.
    """
    from routekit.pipeline.plan import needed_by, resolve, run_name
    from routekit.pipeline.run_folder import RunFolder
    from routekit.pipeline.train import prepare, run

    path = out / (name or run_name(resolve(recipe), recipe))
    if dry_run:
        RunFolder.check_free(path, force=force, needs=[Path(needed) for needed in needed_by(recipe)])
        plan, _ = prepare(recipe, o.machine(device))
        lines = [*plan.lines(), f"folder     {path}"]
        result({"run": str(path), "plan": plan.model_dump(mode="json")}, "\n".join(lines), as_json=json)
        return
    with TrainingDisplay() as display:
        _told(lambda: run(recipe, path, o.machine(device, display), force=force), path, json=json)


def go_on(path: Path, device: str | None, *, json: bool) -> None:
    """Go on with the run at `path`."""
    from routekit.pipeline.train import resume

    with TrainingDisplay() as display:
        _told(lambda: resume(path, o.machine(device, display)), path, json=json)


def _told(work: Callable[[], dict[str, Any]], path: Path, *, json: bool) -> None:
    from routekit.pipeline.run_folder import MARKER
    from routekit.report.findings import warnings

    try:
        record = work()
    except KeyboardInterrupt:
        if (path / MARKER).exists():
            say(f"what was trained is kept: go on with `routekit convert --resume {path}`")
        raise
    if record:  # of several processes, the first one has it
        result(record, summary(record), as_json=json)
        for sentence in warnings(record):
            warn(sentence)
