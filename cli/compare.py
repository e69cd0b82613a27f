"""`routekit compare`: which network to ship, for this data and these budgets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .output import result, say, warn, working

if TYPE_CHECKING:
    from routekit.comparison.plan import ComparisonFolder, Plan
    from routekit.pipeline.machine import Machine


# Options that add cells to a comparison that goes on,
GROWN = ("--methods", "--stack", "--budgets", "--seeds")
# and that say how its cells are carried out and timed.
CARRIED_OUT = ("--launcher", "--jobs", "--cell", "--time", "--runtime", "--dry-run")
METHODS = "dense,l1+cascade,cascade+again,branch,skip,l1,depgraph,distributedk"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def compare(
        context: typer.Context,
        model: Annotated[str | None, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, ...")] = None,
        budgets: Annotated[str | None, typer.Option(help="Mean costs of an image: 30%,50%,70%.")] = None,
        methods: Annotated[
            str | None,
            typer.Option(
                help="dense, drn; skip, exit, branch, cascade, confidence, or several as skip+exit; l1, fpgm, bn, "
                "depgraph, random, also before routing as l1+skip; firstk, randomk, distributedk; idk and l1+idk, "
                "with --smaller; again beside what goes by certainty, as cascade+again. "
                f"By default {METHODS}."
            ),
        ] = None,
        stack: Annotated[
            str | None, typer.Option(help="Also route a pruned network: prune+skip (pruned by L1), or fpgm+exit, ...")
        ] = None,
        seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds: 0, 1, ...; by default one.")] = None,
        weights: o.Weights = None,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        download: o.Download = False,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        smaller: Annotated[
            list[Path] | None, typer.Option(help="A run of a smaller network, for idk; several, the cheapest first.")
        ] = None,
        recipe: o.RecipeName = None,
        epochs: o.Epochs = None,
        set_: o.Set = None,
        out: Annotated[Path, typer.Option(help="The folder that comparisons are made in.")] = Path("comparisons"),
        name: o.Name = None,
        device: o.Device = None,
        launcher: Annotated[str, typer.Option(help="Who carries out the cells: here, or ray.")] = "here",
        jobs: Annotated[
            int, typer.Option(min=1, help="How many cells at once, on a GPU or a share of the cores each.")
        ] = 1,
        cell: Annotated[str | None, typer.Option(help="With --resume: carry out this cell alone.")] = None,
        time_: Annotated[
            bool,
            typer.Option("--time/--no-time", help="At the end, time the first seed's networks in turns."),
        ] = True,
        runtime: Annotated[
            str | None,
            typer.Option(
                help="What they are timed in: any of torch, onnx, openvino, with commas; by default torch or as before."
            ),
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its time, and stop.")] = False,
        resume: Annotated[
            Path | None, typer.Option(help="Go on with this comparison; --methods, --budgets and --seeds add to it.")
        ] = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Compare methods at --budgets, all from one dense MODEL, for the same epochs, on the same images."""
        from routekit.comparison.cells import find
        from routekit.comparison.check import check_plan
        from routekit.comparison.estimate import estimate
        from routekit.comparison.launch import launch, launchers
        from routekit.comparison.method import check_stacked
        from routekit.comparison.plan import ComparisonFolder
        from routekit.comparison.results import measured
        from routekit.comparison.timing import check_runtimes
        from routekit.errors import InputError

        wanted = _listed(methods or "") + [check_stacked(name) for name in _listed(stack or "")]
        machine = o.machine(device)
        launchers[launcher]  # an unknown one is told at once
        timed_in = None if runtime is None else _listed(runtime)
        if timed_in is not None:
            check_runtimes(timed_in)
        if resume is not None:
            o.check_resumed(context, *GROWN, *CARRIED_OUT)
            folder, before = ComparisonFolder.open(resume)
            measured(folder, before)  # what is done and does not belong together is told before more is
            plan = before.extended(wanted, _listed(budgets or ""), range(seeds or 0))
            if plan != before:
                with working("checking what is added"):
                    check_plan(plan)
        else:
            if model is None:
                raise InputError("which network? e.g. routekit compare resnet56 --budgets 30%,50%,70%")
            if not (listed := _listed(budgets or "")):
                raise InputError("which budgets? e.g. --budgets 30%,50%,70% (of the dense cost)")
            if cell is not None:
                raise InputError("--cell is for a comparison that is there: add --resume")
            plan = _plan(
                recipe or o.default_recipe(data),
                {
                    **o.subject(model, weights, data, data_root, download, val, val_from_test),
                    **o.given({"training.epochs": epochs}),
                    **o.overrides(set_),
                },
                methods=wanted if methods else _listed(METHODS) + wanted,
                budgets=listed,
                seeds=seeds or 1,
                smaller=smaller or [],
            )
            folder = ComparisonFolder(out / (name or f"{model.replace(':', '-')}-{Path(data or 'digits').name}"))
            folder.check_free(folder.path, plan, force=force)
            with working("checking all cells"):
                check_plan(plan)
        cells = list(plan.cells()) if cell is None else [find(plan, cell)]
        pending = [each for each in cells if resume is None or not folder.of(each).finished]
        if dry_run:
            # Jobs on the CPU of one machine share its cores: together, they take as long as one after the other.
            shared = launcher == "here" and machine.accelerator().device.type == "cpu"
            seconds = estimate(folder, plan, pending, machine, 1 if shared else jobs)
            lines = [f"  {each.name}: {'done' if each not in pending else 'to do'}" for each in cells]
            title = f"{len(cells)} cells, {len(pending)} to do, about {_duration(seconds)}:"
            document = {"cells": [each.name for each in cells], "seconds": seconds}
            result(document, "\n".join([title, *lines]), as_json=json)
            return
        if resume is None:
            ComparisonFolder.create(folder.path, plan, force=force)
        elif plan != before:
            folder.write(plan)
        try:
            failures = launch(launcher, folder, plan, pending, machine, jobs)
            untimed = cell is None and time_ and not _timed(folder, plan, machine, timed_in)
        except KeyboardInterrupt:
            say(f"what was done is kept: go on with `routekit compare --resume {folder.path}`")
            raise
        document, text = _document(folder, plan)
        result(document | {"failed": {each.cell.name: each.reason for each in failures}}, text, as_json=json)
        if failures:
            say(f"{len(failures)} cells failed; try them again with `routekit compare --resume {folder.path}`")
        if failures or untimed:
            raise typer.Exit(1)


def _plan(
    base: str, shared: dict[str, Any], *, methods: list[str], budgets: list[str], seeds: int, smaller: list[Path]
) -> "Plan":
    from routekit.comparison.plan import Plan

    return Plan(
        base=base,
        shared=shared,
        methods=list(dict.fromkeys(methods)),
        budgets=budgets,
        seeds=list(range(seeds)),
        smaller=[str(path) for path in smaller],
    )


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


def _listed(text: str) -> list[str]:
    """`a, b,a` -> [a, b]."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


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
