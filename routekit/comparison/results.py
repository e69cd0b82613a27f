"""What a comparison has found so far."""

from routekit.comparison.method import SMALLER
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.comparison.timing import read_timings
from routekit.report.comparison import Measured
from routekit.report.record import read_record


def measured(folder: ComparisonFolder, plan: Plan) -> list[Measured]:
    """The cells that are done, in the plan's order."""
    timings = (read_timings(folder) or {"milliseconds": {}})["milliseconds"]
    return [
        Measured(
            cell.method,
            cell.budget,
            cell.seed,
            read_record(folder.of(cell).path),
            timings.get(cell.name, {}),
            given=cell.method.startswith(SMALLER),
        )
        for cell in plan.cells()
        if folder.of(cell).finished
    ]
