"""Carry out the cells of a comparison: each is a run of its own, begun, gone on with, or left as it is."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routekit.comparison.method import DENSE, SMALLER
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import InputError, reason
from routekit.files import alone
from routekit.pipeline.inputs import load_inputs
from routekit.pipeline.machine import Machine
from routekit.pipeline.measure import evaluate_run
from routekit.pipeline.plan import data_of, dense_recipe, needed_by, resolve
from routekit.pipeline.record import write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.train import resume, run
from routekit.recipe import Recipe
from routekit.registry import nearest
from routekit.report.record import read_record


def begin(folder: ComparisonFolder, plan: Plan, machine: Machine) -> Path:
    """The run of the dense network that all cells begin with: the user's own, or one that is made here.

    Published weights that fit the data are measured and packed; else the dense network is trained first.
    """
    recipe = plan.recipe(Cell(DENSE, None, plan.seeds[0]))
    weights = Path(needed_by(recipe)[0])
    if weights.is_dir():
        return weights
    start = RunFolder(folder.start)
    # Cells are carried out by several processes, each of which may be the first to need it.
    with alone(folder.path, machine.hooks.say):
        if not start.finished and start.begun:
            resume(start.path, machine)
        elif not start.finished:
            untrained = load_inputs(resolve(recipe), machine.hooks).untrained
            machine.hooks.say("the dense network that all methods begin with:")
            run(dense_recipe(recipe, train=untrained), start.path, machine)
    return start.path


def carry_out(folder: ComparisonFolder, plan: Plan, cell: Cell, machine: Machine) -> dict[str, Any]:
    """Carry a cell to its end from wherever it stands; returns its record."""
    found = folder.of(cell)
    if found.finished:
        return read_record(found.path)
    start = begin(folder, plan, machine)
    if cell.method.startswith(SMALLER):
        source = Path(plan.smaller[int(cell.method.removeprefix(SMALLER))])
        return _copy(source, found, plan.recipe(Cell(DENSE, None, cell.seed), start), read_record(start), machine)
    if not found.begun:
        try:
            return run(plan.recipe(cell, start), found.path, machine)
        except InputError:
            if not found.begun:
                raise
            # Another process began it while this one read the images.
    return resume(found.path, machine)


def _copy(source: Path, found: RunFolder, recipe: Recipe, start: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """Measure a network that is done on the comparison's images, in shares of what the large one costs."""
    record = evaluate_run(source, data_of(recipe), machine)
    for key in ("accuracy", "flops"):
        record[key]["dense"] = start[key]["dense"]
    shutil.copytree(source / "network", found.path / "network", dirs_exist_ok=True)
    write_record(found.path, record)
    return record


def find(plan: Plan, name: str) -> Cell:
    """The cell of that name. Raises InputError if there is none."""
    cells = {cell.name: cell for cell in plan.cells()}
    if name not in cells:
        raise InputError(f"unknown cell {name!r}: {nearest(name, cells)}")
    return cells[name]


@dataclass(frozen=True)
class Failure:
    """A cell that could not be carried out, and why."""

    cell: Cell
    reason: str


def carry_out_all(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine) -> list[Failure]:
    """Carry out cells, one after the other. What fails, for whatever reason, is told and left; the others go on."""
    failures = []
    for place, cell in enumerate(cells, start=1):
        machine.hooks.say(f"cell {place} of {len(cells)}: {cell.name}")
        try:
            record = carry_out(folder, plan, cell, machine)
        except Exception as error:  # out of memory, say
            failures.append(Failure(cell, reason(error)))
            machine.hooks.warn(f"{cell.name}: {failures[-1].reason}")
            continue
        if record:
            machine.hooks.say(
                f"{cell.name}: {100 * record['accuracy']['routed']:.2f}% at "
                f"{100 * record['flops']['realized'] / record['flops']['dense']:.2f}% of the dense MACs"
            )
    return failures
