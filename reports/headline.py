"""The tables of the first page, from recorded comparisons: accuracies and milliseconds, the methods in plain words."""

from collections.abc import Container
from functools import cache
from pathlib import Path

from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.results import measured
from routekit.comparison.timing import read_timings
from routekit.recipe import load_recipe
from routekit.report.comparison import Measured, Row, rows

HERE = Path(__file__).parent
CALLED = {
    "l1+idk": "cascade of a smaller network and this one, pruned (`--smaller`)",
    "idk": "cascade of a smaller network and this one (`routekit cascade --average`), nothing trained",
    "cascade": "cascade of a narrow form and the network (`--junctions cascade`)",
    "cascade+again": "cascade of a narrow form and the network, and a second look (`--junctions cascade,again`)",
    "l1+cascade": "cascade of a narrow form and the network, pruned (`--prune l1`)",
    "l1+cascade+again": "cascade of a narrow form and the network, pruned, and a second look",
    "branch": "units in full or narrow (`--junctions branch`)",
    "skip": "units skipped (`--junctions skip`)",
    "skip+exit": "units skipped, and exits",
    "exit": "exits alone (`--junctions exit`)",
    "l1": "L1 pruning (`--method l1`)",
    "depgraph": "DepGraph pruning",
    "fpgm": "FPGM pruning",
    "bn": "pruning by the scales of batch norms",
    "random": "random channels pruned",
    "l1+skip": "L1 pruning, then units skipped (`--prune l1 --junctions skip`)",
    "confidence": "exits alone, by a threshold (`--policy confidence`)",
    "drn": "the DRN recipe, in so few epochs (`--recipe drn`)",
    "distributedk": "static depth: DistributedK",
    "randomk": "static depth: RandomK",
    "firstk": "static depth: FirstK",
    "dense": "the dense network, trained as long",
}


@cache
def _cells(group: str) -> list[Measured]:
    return measured(*ComparisonFolder.open(HERE / group))


def _default(budget: str, methods: Container[str]) -> str:
    """What `convert` makes of one network unless it is told otherwise, among the `methods` that a table has.

    Where none looks again, that did not pay on validation images, and the default does without.
    """
    pruning = load_recipe("default").pruning
    pruned = pruning is not None and float(budget.rstrip("%")) / 100 < pruning.below
    if pruned:
        return "l1+cascade"
    return "cascade+again" if "cascade+again" in methods else "cascade"


def compared(group: str) -> str:
    """One line a method, one column a budget: accuracy, cost and seeds."""
    budgets = ComparisonFolder.open(HERE / group)[1].budgets
    table = [row for row in rows(_cells(group)) if row.budget is not None]
    methods = list(dict.fromkeys(row.method for budget in budgets for row in table if row.budget == budget))
    lines = [_line(["", *(f"at {budget} of its cost" for budget in budgets)]), _line(["---"] * (1 + len(budgets)))]
    for method in methods:
        own = {row.budget: row for row in table if row.method == method}
        cells = [_cell(own.get(budget), bold=method == _default(budget, methods)) for budget in budgets]
        lines.append(_line([CALLED.get(method, method), *cells]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: Row | None, *, bold: bool) -> str:
    if row is None:
        return ""
    accuracy = f"**{row.accuracy:.2f}%**" if bold else f"{row.accuracy:.2f}%"
    return accuracy + f" ({row.share:.1f}%" + (f"; {row.seeds} seeds)" if row.seeds > 1 else ")")


def milliseconds(group: str) -> str:
    """One line a network that was timed, and the dense one: milliseconds an image, by runtime and batch."""
    timings = read_timings(ComparisonFolder.open(HERE / group)[0])
    assert timings is not None, f"{group} was not timed"
    table = [row for row in rows(_cells(group)) if row.milliseconds]
    places = list(table[0].milliseconds)
    lines = [_line(["", "budget", *places]), _line(["---"] * (2 + len(places)))]
    for row in table:
        times = [f"{row.milliseconds[place]:.2f}" for place in places]
        lines.append(_line([CALLED.get(row.method, row.label), row.budget or "", *times]))
    where = timings["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in timings["runtimes"].items())
    return "\n".join([*lines, "", f"{where['device']}, {where['threads']} threads; {versions}; {where['date']}"])
