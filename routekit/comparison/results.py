"""What a comparison has found so far."""

from collections.abc import Sequence

from routekit.backbones.load import spec_of
from routekit.comparison.method import SMALLER
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.pipeline.plan import subject_of
from routekit.recipe import load_recipe
from routekit.report.comparison import Measured
from routekit.report.record import read_record


def measured(folder: ComparisonFolder, plan: Plan) -> list[Measured]:
    """The cells that are done, in the plan's order.

    Raises InputError for records of other networks or images than the others': in one table, they would not compare.
    """
    timings = (read_timings(folder) or {"milliseconds": {}})["milliseconds"]
    done = [cell for cell in plan.cells() if folder.of(cell).finished]
    found = [
        Measured(
            cell.method,
            cell.budget,
            cell.seed,
            read_record(folder.of(cell).path),
            timings.get(cell.name, {}),
            given=cell.method.startswith(SMALLER),
        )
        for cell in done
    ]
    _check_alike(folder, plan, done, found)
    return found


def _check_alike(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], found: Sequence[Measured]) -> None:
    network = spec_of(subject_of(load_recipe(plan.base, plan.shared))["network"]).label
    for cell, each in zip(cells, found, strict=True):
        first, record = found[0].record, each.record
        wrong = ""
        # Smaller networks, and cascades of several, are others by design.
        if not (cell.joined or cell.method.startswith(SMALLER)) and record["model"] != network:
            wrong = f"is of {record['model']}, and the plan of {network}"
        elif (record["data"], record["images"]) != (first["data"], first["images"]):
            said = f"{record['images']} images of {record['data']}"
            wrong = f"is of {said}, and {cells[0].name} of {first['images']} of {first['data']}"
        if wrong:
            raise InputError(
                f"{folder.of(cell).path} {wrong}: they do not compare; move it away, and `routekit compare --resume "
                f"{folder.path}` makes it anew"
            )
