"""Carry out one training run, a new one or one that was stopped, and print the result."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .output import TrainingDisplay, result, say, warn
from .summary import summary

if TYPE_CHECKING:
    from routekit.recipe import Recipe


def carry_out(
    recipe: "Recipe",
    out: Path,
    name: str | None,
    device: str | None,
    track: str | None,
    *,
    force: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Carry out a recipe in a new folder, and show the training steps.

    Args:
        recipe: The choices.
        out: The folder in which the run's folder is made.
        name: The name of the run's folder; None for one made from the plan.
        device: The value of --device.
        track: The value of --track.
        force: Whether an old run there is replaced.
        dry_run: Whether only the plan is printed.
        json: Whether a JSON document is printed.

    Raises:
        InputError: Some input is wrong.
    """
    from routekit.pipeline.plan import needed_by, resolve, run_name
    from routekit.pipeline.run_folder import RunFolder
    from routekit.pipeline.train import prepare, run

    path = out / (name or run_name(resolve(recipe), recipe))
    if dry_run:
        RunFolder.check_free(path, force=force, needs=needed_by(recipe))
        plan, _ = prepare(recipe, o.machine(device, track=track))
        lines = [*plan.lines(), f"folder     {path}"]
        result({"run": str(path), "plan": plan.model_dump(mode="json")}, "\n".join(lines), as_json=json)
        return
    with TrainingDisplay() as display:
        _show(lambda: run(recipe, path, o.machine(device, display, track), force=force), path, track, json=json)


def go_on(context: typer.Context, path: Path, device: str | None, track: str | None, *, json: bool) -> None:
    """Continue a run that was stopped.

    Args:
        context: The command line, which may hold no settings of the run.
        path: The folder of the run.
        device: The value of --device.
        track: The value of --track.
        json: Whether a JSON document is printed.

    Raises:
        InputError: There is no such run, or there are settings beside --resume.
    """
    from routekit.pipeline.train import resume

    o.check_resumed(context, "--track")
    with TrainingDisplay() as display:
        _show(lambda: resume(path, o.machine(device, display, track)), path, track, json=json)


def _show(work: Callable[[], dict[str, Any]], path: Path, track: str | None, *, json: bool) -> None:
    """Print the record of a run, with warnings; if it is interrupted, how to continue it."""
    from routekit.report.findings import warnings

    try:
        record = work()
    except KeyboardInterrupt:
        from routekit.pipeline.run_folder import RunFolder

        if RunFolder(path).begun:
            again = f"{o.words.get()[0]} --resume {path}{f' --track {track}' if track else ''}"
            say(f"what was trained is kept: go on with `routekit {again}`")
        raise
    if record:  # of several processes, the first one has it
        result(record, summary(record), as_json=json)
        for sentence in warnings(record):
            warn(sentence)
        say(_ended(record, path))


def _ended(record: dict[str, Any], path: Path) -> str:
    """What came out, in one line, and what can be done next."""
    accuracy, flops, run = record["accuracy"], record["flops"], shlex.quote(str(path))
    right = f"{100 * accuracy['routed']:.2f}% of the test images right"
    if record["method"] == "dense":
        return f"done: {right}. Next: `routekit convert {_start(path)}`, with a budget"
    dense = "" if accuracy["dense"] is None else f" (dense: {100 * accuracy['dense']:.2f}%)"
    share = 100 * flops["realized"] / flops["dense"]
    return f"done: {right}{dense} at {share:.1f}% of the dense cost. Next: `routekit report {run} --open`"


def _start(path: Path) -> str:
    """How another command starts from a dense run: its network, its weights, its images, and how these are seen."""
    from routekit.pipeline.run_folder import plan_at

    plan, given = plan_at(path), ["MODEL", "--weights", str(path)]
    if plan is not None:
        given[0] = plan.model.removeprefix("custom:")
        given += ["--data", plan.data.source]
        if plan.data.input_size is not None:
            given += ["--set", f"data.input_size={plan.data.input_size}"]
    return shlex.join(given)
