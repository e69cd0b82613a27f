"""`routekit compare`: which network to ship, for this data and these budgets."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from . import settings
from .output import result, say, warn, working

if TYPE_CHECKING:
    from routekit.comparison.plan import ComparisonFolder, Plan
    from routekit.pipeline.machine import Machine

METHODS = "dense,l1+cascade,cascade+again,branch,skip,l1,depgraph,distributedk"


def compare(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, ...")] = None,
    budgets: Annotated[str | None, o.option("Mean costs of an image: 30%,50%,70%.")] = None,
    methods: Annotated[
        str | None,
        o.option(
            "dense, drn; skip, exit, branch, cascade, confidence, or several as skip+exit; l1, fpgm, bn, depgraph, "
            "random, also before routing as l1+skip; firstk, randomk, distributedk; idk and l1+idk, with --smaller; "
            f"again after methods that decide by certainty, as cascade+again. Default: {METHODS}."
        ),
    ] = None,
    stack: Annotated[
        str | None, o.option("Also route a pruned network: prune+skip (pruned by L1), fpgm+exit, ...")
    ] = None,
    seeds: Annotated[int | None, o.option("How many seeds: 0, 1, ... Default: one.", min=1, max=1000)] = None,
    weights: o.Weights = None,
    data: o.Data = None,
    data_root: o.DataRoot = None,
    download: o.Download = False,
    val: o.Val = None,
    val_from_test: o.ValFromTest = None,
    smaller: Annotated[
        list[Path] | None, o.option("A run of a smaller network, for idk; several: the cheapest first.")
    ] = None,
    recipe: o.RecipeName = None,
    epochs: o.Epochs = None,
    set_: o.Set = None,
    out: Annotated[Path, o.option("The folder in which comparisons are made.")] = Path("comparisons"),
    name: o.Name = None,
    device: o.Device = None,
    launcher: Annotated[str, o.option("Where cells run: here, or ray.")] = "here",
    jobs: Annotated[int, o.option("How many cells run at once, each on a GPU or a share of the cores.", min=1)] = 1,
    cell: Annotated[str | None, o.option("With --resume: run only this cell.")] = None,
    time_: Annotated[
        bool, o.option("At the end, time the networks of the first seed in turns.", None, "--time/--no-time")
    ] = True,
    runtime: Annotated[
        str | None,
        o.option("Runtimes to time in, with commas: torch, onnx, openvino. Default: those timed before, else torch."),
    ] = None,
    dry_run: Annotated[bool, o.option("Print the plan and its estimated time, and stop.", None, "--dry-run")] = False,
    resume: Annotated[
        Path | None, o.option("Continue this comparison; --methods, --budgets and --seeds add cells to it.")
    ] = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Compare methods at --budgets: all start from one dense MODEL and train as long on the same images."""
    from routekit.comparison.cells import find
    from routekit.comparison.check import check_plan
    from routekit.comparison.estimate import estimate
    from routekit.comparison.launch import launch, launchers
    from routekit.comparison.method import check_stacked
    from routekit.comparison.plan import ComparisonFolder, Plan
    from routekit.comparison.results import measured
    from routekit.comparison.timing import check_runtimes
    from routekit.errors import InputError
    from routekit.recipe import load_recipe

    wanted = o.listed(methods) + [check_stacked(each) for each in o.listed(stack)]
    machine = o.machine(device)
    launchers[launcher]  # an unknown one is the first error
    runtimes = None if runtime is None else o.listed(runtime)
    if runtimes is not None:
        check_runtimes(runtimes)
    if resume is not None:
        grown = ("--methods", "--stack", "--budgets", "--seeds")
        o.check_resumed(context, *grown, "--launcher", "--jobs", "--cell", "--time", "--runtime", "--dry-run")
        folder, before = ComparisonFolder.open(resume)
        if Path(before.began_in).is_dir() and not Path(before.began_in).samefile("."):
            folder = ComparisonFolder(resume.absolute())
            os.chdir(before.began_in)  # where its paths go out from
        measured(folder, before)  # finished cells that do not belong together are the first error
        plan = before.extended(wanted, o.listed(budgets), range(seeds or 0))
        checking = "checking what is added"
    else:
        if model is None:
            raise InputError("which network? e.g. routekit compare resnet56 --budgets 30%,50%,70%")
        if not o.listed(budgets):
            raise InputError("which budgets? e.g. --budgets 30%,50%,70% (of the dense cost)")
        if cell is not None:
            raise InputError("--cell is for a comparison that is there: add --resume")
        base = recipe or settings.default_recipe(data)
        plan = Plan(
            base=base,
            shared={
                **settings.subject(model, weights, data, data_root, download, val, val_from_test),
                **settings.lengths(epochs, load_recipe(base).dense.epochs),
                **settings.overrides(set_),
            },
            methods=list(dict.fromkeys(wanted if methods else o.listed(METHODS) + wanted)),
            budgets=o.listed(budgets),
            seeds=list(range(seeds or 1)),
            smaller=[str(path) for path in smaller or []],
            began_in=str(Path.cwd()),
        )
        folder_name = name or f"{model.replace(':', '-')}-{Path(data or 'digits').name}"
        folder, before = ComparisonFolder(out / folder_name), None
        folder.check_free(folder.path, plan, force=force)
        checking = "checking all cells"
    if plan != before:
        with working(checking):
            check_plan(plan)
    cells = list(plan.cells()) if cell is None else [find(plan, cell)]
    pending = [each for each in cells if resume is None or not folder.of(each).finished]
    if dry_run:
        # Jobs on the CPU of one machine share its cores: together, they take as long as one after the other.
        shared = launcher == "here" and machine.accelerator().device.type == "cpu"
        seconds = estimate(folder, plan, pending, machine, 1 if shared else jobs)
        lines = [f"  {each.name}: {'done' if each not in pending else 'to do'}" for each in cells]
        title = f"{len(cells)} cells, {len(pending)} to do, about {_duration(seconds)}:"
        document: dict[str, Any] = {"cells": [each.name for each in cells], "seconds": seconds}
        result(document, "\n".join([title, *lines]), as_json=json)
        return
    if resume is None:
        ComparisonFolder.create(folder.path, plan, force=force)
    elif plan != before:
        folder.write(plan)
    try:
        failures = launch(launcher, folder, plan, pending, machine, jobs)
        untimed = cell is None and time_ and not _timed(folder, plan, machine, runtimes)
    except KeyboardInterrupt:
        say(f"what was done is kept: go on with `routekit compare --resume {folder.path}`")
        raise
    document, text = _document(folder, plan)
    result(document | {"failed": failures}, text, as_json=json)
    if failures:
        say(f"{len(failures)} cells failed; try them again with `routekit compare --resume {folder.path}`")
    if failures or untimed:
        raise typer.Exit(1)


def _timed(folder: "ComparisonFolder", plan: "Plan", machine: "Machine", runtimes: list[str] | None) -> bool:
    """Time the networks; if that fails, say why: what is measured has its table nevertheless."""
    from routekit.comparison.timing import time_cells
    from routekit.errors import reason

    try:
        time_cells(folder, plan, machine, runtimes)
    except Exception as error:  # out of memory, say
        warn(f"nothing is timed: {reason(error)}; time again with `routekit compare --resume {folder.path}`")
        return False
    return True


def _document(folder: "ComparisonFolder", plan: "Plan") -> tuple[dict[str, Any], str]:
    """The table of what is done, as a document and as text."""
    from dataclasses import asdict

    from routekit.comparison.results import measured
    from routekit.report.comparison import rows
    from routekit.report.comparison_page import markdown
    from routekit.report.verdict import verdict

    cells = measured(folder, plan)
    table = rows(cells)
    text = f"{markdown(table)}\n\n{verdict(cells)}" if table else "nothing is done yet"
    return {"comparison": str(folder.path), "rows": [asdict(row) for row in table]}, text


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
