"""All faults that can be found in a plan alone, before the first cell begins."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from routekit.comparison.method import DENSE, check_method, settings
from routekit.comparison.plan import PRUNED_TO, Cell, Plan
from routekit.cost.target import OutOfReachError, parse_amount
from routekit.errors import InputError
from routekit.macs import CONVENTION
from routekit.pipeline.plan import check_reach, data_of, resolve
from routekit.pipeline.run_folder import RunFolder
from routekit.report.record import read_record


def check_plan(plan: Plan) -> None:
    """Raise InputError that names every fault of a plan at once: of what all cells share, or else of its cells."""
    if faults := list(_shared_faults(plan)):
        raise InputError("; ".join(faults))
    found: dict[str, list[Cell]] = {}
    for cell in plan.cells():
        if cell.seed == plan.seeds[0] and cell.budget is not None and (fault := _fault(plan, cell)):
            found.setdefault(fault, []).append(cell)
    if found:
        wrong = [cell for cells in found.values() for cell in cells]
        faults = [f"{_named(cells)}: {fault}" for fault, cells in found.items()]
        raise InputError("; ".join(faults) + _way_out(plan, wrong))


def _shared_faults(plan: Plan) -> Iterator[str]:
    """The faults of budgets, methods, settings, smaller networks, and of the network and the images of all cells."""
    if wrong := [budget for budget in plan.budgets if not _is_cost(budget)]:
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
    fault, seed = _fault(plan, plan.dense), plan.seeds[0]
    # Which test images remain beside the validation images is drawn by the seed.
    drawn = fault is None and data_of(plan.recipe(plan.dense)).val_from_test is not None
    for path in plan.smaller:
        if not RunFolder(Path(path)).finished:
            yield f"--smaller {path}: no finished run"
        elif drawn and (other := read_record(Path(path)).get("seed", 0)) != seed:
            yield (
                f"--smaller {path}: made with seed {other}, and --val-from-test parts the test images by the seed: its "
                f"own would be others; make it with --seed {seed}"
            )
    if fault is not None:
        yield fault


def _is_cost(budget: str) -> bool:
    try:
        return parse_amount(budget, 1.0) > 0
    except InputError:
        return False


def _fault(plan: Plan, cell: Cell) -> str | None:
    """The fault of a cell, if it has one."""
    try:
        recipe = plan.recipe(cell)
        made = resolve(recipe)
        check_reach(made, recipe)
    except OutOfReachError as error:
        return error.limit
    except InputError as error:
        return str(error)
    unpruned = made.pruned is None and settings(cell.method, cell.budget).get("pruning")
    return "nothing is pruned for so large a budget" if unpruned else None


def _named(cells: Sequence[Cell]) -> str:
    """`skip at 1%, 5% and exit at 5%`."""
    budgets: dict[str, list[str]] = {}
    for cell in cells:
        budgets.setdefault(cell.method, []).append(str(cell.budget))
    return " and ".join(f"{method} at {', '.join(given)}" for method, given in budgets.items())


def _way_out(plan: Plan, wrong: Sequence[Cell]) -> str:
    """The budgets, or the methods, without which all other cells can be made."""
    budgets = [budget for budget in plan.budgets if budget in {cell.budget for cell in wrong}]
    methods = [method for method in plan.methods if method in {cell.method for cell in wrong}]
    remedies = [f"budgets {', '.join(budgets)}"] if len(budgets) < len(plan.budgets) else []
    if set(methods) < {*plan.methods} - {DENSE}:
        remedies.append(f"methods {', '.join(methods)}")
    return f"; leave out {' or '.join(remedies)}" if remedies else ""
