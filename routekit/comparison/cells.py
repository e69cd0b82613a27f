"""Carry out the cells of a comparison: each is a run of its own, which is begun, resumed, or already finished."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import InputError, reason
from routekit.files import alone, make_folder
from routekit.pipeline.machine import Machine
from routekit.pipeline.measure import evaluate_run
from routekit.pipeline.plan import data_of, dense_recipe, needed_by
from routekit.pipeline.record import write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.train import prepare, resume, run
from routekit.registry import nearest
from routekit.report.record import read_record


def begin(folder: ComparisonFolder, plan: Plan, machine: Machine) -> Path:
    """Find or make the run of the dense network that all cells begin with.

    Published weights that fit the data are measured and packed. Otherwise, the dense network is trained first.

    Args:
        folder: The comparison.
        plan: Its plan.
        machine: Where it runs.

    Returns:
        The user's own run, or the one made here.
    """
    recipe = plan.recipe(plan.dense)
    weights = needed_by(recipe)[0]
    if weights.is_dir():
        return weights
    start = RunFolder(folder.start)
    # Several processes carry out cells, and each may be the first to need it.
    with alone(folder.path, machine.hooks.say):
        if start.begun and not start.finished:
            resume(start.path, machine)
        elif not start.finished:
            _, inputs = prepare(recipe, machine)
            machine.hooks.say("the dense network that all methods begin with:")
            run(dense_recipe(recipe, train=inputs.untrained), start.path, machine)
    return start.path


def carry_out(folder: ComparisonFolder, plan: Plan, cell: Cell, machine: Machine) -> dict[str, Any]:
    """Carry out a cell, from whatever was done of it before.

    Args:
        folder: The comparison.
        plan: Its plan.
        cell: The cell.
        machine: Where it runs.

    Returns:
        The record; of several processes that train together, only the first one gets it, the others an empty one.

    Raises:
        InputError: Something that the user gave is wrong.
        TrainingError: Training cannot go on.
    """
    found = folder.of(cell)
    if found.finished:
        return read_record(found.path)
    start = begin(folder, plan, machine)
    if cell.given:
        return _measure(folder, plan, cell, start, machine)
    if not found.begun:
        try:
            return run(plan.recipe(cell, start), found.path, machine)
        except InputError:
            if not found.begun:
                raise
            # Another process began it while this one read the images.
    return resume(found.path, machine)


def _measure(folder: ComparisonFolder, plan: Plan, cell: Cell, start: Path, machine: Machine) -> dict[str, Any]:
    """Measure a network that the user gave on the comparison's images, in shares of the dense cost, and copy it."""
    source, to, dense = Path(plan.run_of(cell)), folder.of(cell).path, read_record(start)
    record = evaluate_run(source, data_of(plan.recipe(plan.dense, start)), machine)
    for key in ("accuracy", "flops"):
        record[key]["dense"] = dense[key]["dense"]
    make_folder(to, "run")
    shutil.copytree(source / "network", to / "network", dirs_exist_ok=True)
    write_record(to, record)
    return record


def find(plan: Plan, name: str) -> Cell:
    """Find a cell by its name.

    Args:
        plan: The plan.
        name: The name of the cell's folder.

    Returns:
        The cell.

    Raises:
        InputError: There is no such cell.
    """
    cells = {cell.name: cell for cell in plan.cells()}
    if name not in cells:
        raise InputError(f"unknown cell {name!r}: {nearest(name, cells)}")
    return cells[name]


def carry_out_all(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine) -> dict[str, str]:
    """Carry out cells, one after the other. A cell that fails, for whatever reason, does not stop the others.

    Args:
        folder: The comparison.
        plan: Its plan.
        cells: The cells.
        machine: Where they run.

    Returns:
        Why cells failed, by their names.
    """
    failures = {}
    for place, cell in enumerate(cells, start=1):
        machine.hooks.say(f"cell {place} of {len(cells)}: {cell.name}")
        try:
            record = carry_out(folder, plan, cell, machine)
        except Exception as error:  # for example, out of memory
            failures[cell.name] = reason(error)
            machine.hooks.warn(f"{cell.name}: {reason(error)}")
            continue
        if record:
            right, flops = record["accuracy"]["routed"], record["flops"]
            share = 100 * flops["realized"] / flops["dense"]
            machine.hooks.say(f"{cell.name}: {100 * right:.2f}% at {share:.2f}% of the dense MACs")
    return failures
