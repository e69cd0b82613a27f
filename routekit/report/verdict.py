"""The findings of a comparison in sentences: the best at each budget, whether that may be chance, and the frontier."""

from collections.abc import Sequence

from routekit.report.comparison import MACS, Measured, Row, dense_accuracy, frontier, rows, scales
from routekit.report.differences import Difference, differences


def findings(cells: Sequence[Measured]) -> list[str]:
    """List the findings: all leads in one sentence, then a sentence for each budget and for each frontier.

    The first sentence is missing where no two methods have a budget in common.
    """
    table, dense = rows(cells), dense_accuracy(cells)
    leads, budgets = [], []
    for budget, (best, *others) in by_budget(table).items():
        if not others:
            continue
        if best.accuracy == others[0].accuracy:
            leads.append(f"at {budget}, {best.label} and {others[0].label} are alike")
            continue
        short, long = _lead(cells, best, others[0])
        leads.append(f"at {budget}, {best.label} leads by {short}")
        budgets.append(
            f"At {budget}, {best.label} is best, {long}. It has {best.accuracy:.2f}%, the dense network {dense:.2f}%."
        )
    summary = "; ".join(leads)
    frontiers = [_frontier(table, scale) for scale in scales(table)]
    return [*([f"{summary[0].upper()}{summary[1:]}."] if summary else []), *budgets, *frontiers, *_rising(cells)]


def _rising(cells: Sequence[Measured]) -> list[str]:
    """Name the methods whose accuracy on validation images still rose clearly in the last epoch."""
    gains: dict[str, float] = {}
    for cell in cells:
        last = cell.record.get("last_epoch")
        if last is not None and last["gain"] > 2 * last["error"]:
            gains[cell.label] = max(last["gain"], gains.get(cell.label, 0.0))
    if not gains:
        return []
    named = ", ".join(f"{name} (by {gain:.1f} points)" for name, gain in gains.items())
    return [f"On validation images, these still rose in their last epoch: {named}. With more, another method may win."]


def verdict(cells: Sequence[Measured]) -> str:
    """Write the findings, one a line."""
    return "\n".join(findings(cells))


def _lead(cells: Sequence[Measured], best: Row, second: Row) -> tuple[str, str]:
    """Describe by how many points the best leads, and what speaks against that: in short, and in full."""
    pairs = differences(cells, best.method)
    found = next((each for each in pairs if (each.other, each.budget) == (second.method, second.budget)), None)
    lead = f"{best.accuracy - second.accuracy:.2f}"
    short = f"{lead} points, but not on seeds of both"
    if found is None:
        return short, f"{lead} points over {second.label}, no seed being of both"
    seeds = "on the one seed of both" if found.seeds == 1 else f"over the {found.seeds} seeds of both"
    if found.mean <= 0:  # a seed that only one of them has made it the best
        return short, f"{lead} points over {second.label} in the mean, but {difference(found)} {seeds}"
    doubt = ""
    if not found.clear:
        doubt = ", of which no error is known" if found.error is None else ", which may be chance"
    said = difference(found)
    return f"{said.removeprefix('+')} points{doubt}", f"{said} points over {second.label} {seeds}{doubt}"


def _frontier(table: Sequence[Row], scale: str) -> str:
    """Name the rows that no other row beats on a scale of costs."""
    best = frontier(table, scale)
    if scale == MACS:
        named = ", ".join(f"{row.name} ({row.accuracy:.2f}% at {row.share:.1f}%)" for row in best)
        return f"On the frontier: {named}."
    named = ", ".join(f"{row.name} ({row.accuracy:.2f}% in {row.costs[scale]:.2f})" for row in best)
    known = sum(scale in row.costs for row in table)
    among = "" if known == len(table) else f", of the {known} that were timed"
    return f"On the frontier by {scale}{among}: {named}."


def by_budget(table: Sequence[Row]) -> dict[str, list[Row]]:
    """Group the rows by budget, the best of each budget first."""
    budgets = dict.fromkeys(row.budget for row in table if row.budget is not None)
    return {budget: [row for row in table if row.budget == budget] for budget in budgets}


def difference(found: Difference) -> str:
    """Write a difference in points, with its standard error where that is known."""
    return f"{found.mean:+.2f}" + ("" if found.error is None else f" ± {found.error:.2f}")
