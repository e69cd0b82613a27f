"""What cannot be, found in a plan alone: all of it, before the first cell is begun."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from routekit.comparison.method import DENSE, check_method, prunes
from routekit.comparison.plan import PRUNED_TO, Cell, Plan
from routekit.cost.target import OutOfReachError, parse_amount
from routekit.errors import InputError
from routekit.macs import CONVENTION
from routekit.pipeline.plan import data_of, resolve
from routekit.pipeline.run_folder import RunFolder
from routekit.report.record import read_record


def check_plan(plan: Plan) -> None:
    """Raise InputError that tells every fault of a plan at once: of what it names, else of its cells."""
    faults = list(_misnamed(plan))
    if faults:
        raise InputError("; ".join(faults))
    found: dict[str, list[Cell]] = {}
    for cell in plan.cells():
        if cell.seed == plan.seeds[0] and cell.budget is not None:
            fault = _fault(plan, cell)
            if fault is not None:
                found.setdefault(fault, []).append(cell)
    if found:
        told = [f"{_named(cells)}: {fault}" for fault, cells in found.items()]
        wrong = [cell for cells in found.values() for cell in cells]
        raise InputError("; ".join(told) + _way_out(plan, wrong))


def _misnamed(plan: Plan) -> Iterator[str]:
    """Budgets, methods, settings and runs that there are not; a network or weights that cannot be."""
    wrong = [budget for budget in plan.budgets if not _is_cost(budget)]
    if wrong:
        yield f"--budgets {','.join(wrong)}: no cost: write 1.5e8, 150M or 60% ({CONVENTION})"
    for method in plan.methods:
        try:
            check_method(method)
        except InputError as error:
            yield str(error)
    joined = next((cell.method for cell in plan.cells() if cell.joined), None)
    if joined is not None and not plan.smaller:
        yield f"method {joined} joins this network with smaller ones: begin a comparison with their runs, --smaller"
    for name in plan.shared:
        if name.partition(".")[0] == "pruning" and name != PRUNED_TO:
            yield f"--set {name}: methods say what is pruned, as fpgm+skip; --set {PRUNED_TO} how far"
    for path in plan.smaller:
        if not RunFolder(Path(path)).finished:
            yield f"--smaller {path}: no finished run"
    # What all cells share is wrong once, and not in each of them.
    dense = Cell(DENSE, None, plan.seeds[0])
    shared = _fault(plan, dense)
    if shared is not None:
        yield shared
    elif data_of(plan.recipe(dense)).val_from_test is not None:
        yield from _of_other_images(plan)


def _of_other_images(plan: Plan) -> Iterator[str]:
    """Smaller networks that would be measured on other test images: which ones are, is drawn by the seed."""
    for path in filter(lambda path: RunFolder(path).finished, map(Path, plan.smaller)):
        seed = read_record(path).get("seed", 0)
        if seed != plan.seeds[0]:
            yield (
                f"--smaller {path}: made with seed {seed}, and --val-from-test parts the test images by the seed: its "
                f"own would be others; make it with --seed {plan.seeds[0]}"
            )


def _is_cost(budget: str) -> bool:
    try:
        return parse_amount(budget, 1.0) > 0
    except InputError:
        return False


def _fault(plan: Plan, cell: Cell) -> str | None:
    """What is wrong with a cell, if anything is."""
    try:
        recipe = plan.recipe(cell)
        made = resolve(recipe)
        if prunes(cell.method) and made.pruned is None:
            return "nothing is pruned for so large a budget"
    except OutOfReachError as error:
        return error.limit
    except InputError as error:
        return str(error)
    return None


def _named(cells: Sequence[Cell]) -> str:
    """`skip at 1%, 5% and exit at 5%`."""
    budgets: dict[str, list[str]] = {}
    for cell in cells:
        budgets.setdefault(cell.method, []).append(str(cell.budget))
    return " and ".join(f"{method} at {', '.join(given)}" for method, given in budgets.items())


def _way_out(plan: Plan, wrong: Sequence[Cell]) -> str:
    """Which budgets, or which methods, can be left out, so that what is left can be."""
    budgets = [budget for budget in plan.budgets if budget in {cell.budget for cell in wrong}]
    methods = [method for method in plan.methods if method in {cell.method for cell in wrong}]
    ways = [f"budgets {', '.join(budgets)}"] if len(budgets) < len(plan.budgets) else []
    if set(methods) < {*plan.methods} - {DENSE}:
        ways.append(f"methods {', '.join(methods)}")
    return f"; leave out {' or '.join(ways)}" if ways else ""
