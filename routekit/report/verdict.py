"""What a comparison says, in sentences: who is best at each budget, if that may be chance, and what nothing beats."""

from collections.abc import Sequence

from routekit.report.comparison import Measured, Row, dense_accuracy, frontier, placed, rows, scales
from routekit.report.differences import Difference, differences


def findings(cells: Sequence[Measured]) -> list[str]:
    """All in one sentence, if there is something to compare; then a sentence for each budget, and for each frontier."""
    table, dense = rows(cells), dense_accuracy(cells)
    leads, budgets = [], []
    for budget, (best, *others) in by_budget(table).items():
        if not others:
            continue
        if best.accuracy == others[0].accuracy:
            leads.append(f"at {budget}, {best.label} and {others[0].label} are alike")
            continue
        lead, caveat = _lead(cells, best, others[0])
        leads.append(f"at {budget}, {best.label} leads by {lead} points{caveat}")
        budgets.append(
            f"At {budget}, {best.label} is best, {_long_lead(cells, best, others[0])}. It has {best.accuracy:.2f}%, "
            f"the dense network {dense:.2f}%."
        )
    frontiers = ["On the frontier: " + ", ".join(f"{row.name} ({_figures(row)})" for row in frontier(table)) + "."]
    for title, cost in list(scales(table).items())[1:]:
        named = ", ".join(f"{row.name} ({row.accuracy:.2f}% in {cost(row):.2f})" for row in frontier(table, cost))
        known = len(placed(table, cost))
        among = "" if known == len(table) else f", of the {known} that were timed"
        frontiers.append(f"On the frontier by {title}{among}: {named}.")
    whole = "; ".join(leads)
    return [*([f"{whole[0].upper()}{whole[1:]}."] if whole else []), *budgets, *frontiers]


def verdict(cells: Sequence[Measured]) -> str:
    """The findings, one a line."""
    return "\n".join(findings(cells))


def _lead(cells: Sequence[Measured], best: Row, second: Row) -> tuple[str, str]:
    """By how many points the best leads, and what is to be said against that."""
    found = _paired(cells, best, second)
    if found is None or found.mean <= 0:
        return f"{best.accuracy - second.accuracy:.2f}", ", but not on seeds of both"
    return difference(found).removeprefix("+"), _doubt(found)


def _long_lead(cells: Sequence[Measured], best: Row, second: Row) -> str:
    found = _paired(cells, best, second)
    if found is None:
        return f"{best.accuracy - second.accuracy:.2f} points over {second.label}, no seed being of both"
    seeds = "on the one seed of both" if found.seeds == 1 else f"over the {found.seeds} seeds of both"
    if found.mean <= 0:  # a seed that only one of them has made it the best
        lead = best.accuracy - second.accuracy
        return f"{lead:.2f} points over {second.label} in the mean, but {difference(found)} {seeds}"
    return f"{difference(found)} points over {second.label} {seeds}{_doubt(found)}"


def _paired(cells: Sequence[Measured], best: Row, second: Row) -> Difference | None:
    found = differences(cells, best.method)
    return next((each for each in found if (each.other, each.budget) == (second.method, second.budget)), None)


def _doubt(found: Difference) -> str:
    if found.clear:
        return ""
    return ", of which no error is known" if found.error is None else ", which may be chance"


def _figures(row: Row) -> str:
    return f"{row.accuracy:.2f}% at {row.share:.1f}%"


def by_budget(table: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows at each budget, the best first."""
    budgets = dict.fromkeys(row.budget for row in table if row.budget is not None)
    return {budget: [row for row in table if row.budget == budget] for budget in budgets}


def difference(found: Difference) -> str:
    """In points, with its standard error if that is known."""
    return f"{found.mean:+.2f}" if found.error is None else f"{found.mean:+.2f} ± {found.error:.2f}"
