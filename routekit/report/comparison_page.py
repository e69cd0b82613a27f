"""What a comparison says, in words and in Markdown: pure functions of records."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from routekit.macs import CONVENTION
from routekit.report.comparison import Measured, Row, frontier, placed, rows, scales
from routekit.report.differences import Difference, differences


def verdict(cells: Sequence[Measured]) -> str:
    """Say in words who is on the frontier, who is best at each budget, by how much, and whether that may be chance."""
    table = rows(cells)
    sentences = ["On the frontier: " + ", ".join(f"{row.name} ({_figures(row)})" for row in frontier(table)) + "."]
    for budget, (best, *others) in _by_budget(table).items():
        if others:
            sentences.append(f"At {budget}, {best.method} is best, {_lead(cells, best, others[0])}.")
    for title, cost in list(scales(table).items())[1:]:
        named = ", ".join(f"{row.name} ({row.accuracy:.2f}% in {cost(row):.2f})" for row in frontier(table, cost))
        known = len(placed(table, cost))
        among = "" if known == len(table) else f", of the {known} that were timed"
        sentences.append(f"On the frontier by {title}{among}: {named}.")
    return " ".join(sentences)


def _lead(cells: Sequence[Measured], best: Row, second: Row) -> str:
    paired = [
        each for each in differences(cells, best.method) if (each.other, each.budget) == (second.method, second.budget)
    ]
    if not paired:
        return f"{best.accuracy - second.accuracy:.2f} points over {second.method}, no seed being of both"
    (found,) = paired
    seeds = "on the one seed of both" if found.seeds == 1 else f"over the {found.seeds} seeds of both"
    if found.mean <= 0:  # a seed that only one of them has made it the best
        lead = best.accuracy - second.accuracy
        return f"{lead:.2f} points over {second.method} in the mean, but {_difference(found)} {seeds}"
    said = f"{_difference(found)} points over {second.method} {seeds}"
    if found.clear:
        return said
    return said + (", of which no error is known" if found.error is None else ", which may be chance")


def _figures(row: Row) -> str:
    return f"{row.accuracy:.2f}% at {row.share:.1f}%"


def markdown(table: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    names = [*columns(table), "on the frontier"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    best = frontier(table)
    for row in table:
        lines.append("| " + " | ".join([*figures(row, table), "yes" if row in best else ""]) + " |")
    return "\n".join(lines)


def title_of(plan: Mapping[str, Any], cells: Sequence[Measured]) -> str:
    """What was compared, in one line."""
    # A smaller network, and a cascade of it, have rows, but are not what it is about.
    model, data = plan["shared"]["model.name"], cells[0].record["data"]
    return f"{model} on {data}: {len({cell.method for cell in cells})} methods compared"


def how_measured(cells: Sequence[Measured], timings: Mapping[str, Any] | None = None) -> str:
    """On which terms, and where and when."""
    # What the dense network's own record calls "dense" is what came of fine-tuning it further.
    first = next((cell for cell in cells if cell.record["method"] != "dense"), cells[0]).record
    machines = sorted({str(each.record["environment"]["device"]) for each in cells})
    dates = sorted({each.record["environment"]["date"] for each in cells})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    timed = ""
    if timings is not None and len(scales(rows(cells))) > 1:
        images = ", ".join(f"{count} at batch {batch}" for batch, count in timings["images"].items())
        versions = ", ".join(f"{name} {version}" for name, version in timings["runtimes"].items())
        timed = (
            f" Milliseconds are of the first seed's networks, called in turns on test images ({images}), each in the "
            f"fastest form that the runtime has for it without torch.compile ({versions}), on "
            f"{timings['environment']['device']}."
        )
    return (
        f"Every network began as the same dense one ({100 * first['accuracy']['dense']:.2f}% of the {first['images']} "
        f"{first['split']} images), and was fine-tuned for as many epochs on the same images; smaller networks were "
        "trained before, and of a cascade of whole networks (idk) only what is pruned is trained. Budgets were met on "
        "validation images. "
        f"Costs are {CONVENTION}, routers and exits included; in the table, ± is one standard deviation over seeds. "
        f"Measured {when} on {', '.join(machines)}.{timed}"
    )


def columns(table: Sequence[Row]) -> list[str]:
    """What `figures` are of."""
    timed = list(scales(table))[1:]
    return ["budget", "method", "accuracy, %", "of the dense MACs, %", "seeds", "parameters", "bytes", *timed]


def figures(row: Row, table: Sequence[Row]) -> list[str]:
    """A row's entries in the columns of `table`."""
    spread = f" ± {row.spread:.2f}" if row.seeds > 1 else ""
    sizes = [_short(row.parameters), _short(row.size)]
    times = [f"{cost(row):.2f}" if placed([row], cost) else "" for cost in list(scales(table).values())[1:]]
    accuracy = f"{row.accuracy:.2f}{spread}"
    return [row.budget or "none", row.method, accuracy, f"{row.share:.2f}", str(row.seeds), *sizes, *times]


def comparison_page(
    plan: dict[str, Any], cells: Sequence[Measured], table: Sequence[Row], *, picture: str, planned: int, how: str
) -> str:
    """The report in Markdown: what was compared, what came of it, `how` it was measured."""
    done = "" if len(cells) == planned else f" {len(cells)} of {planned} cells are done."
    return "\n".join(
        [
            f"# {title_of(plan, cells)}",
            "",
            verdict(cells) + done,
            "",
            f"![accuracy against cost]({picture})",
            "",
            markdown(table),
            "",
            how,
            "",
            *_paired(cells),
            "The plan:",
            "",
            "```yaml",
            str(yaml.safe_dump(plan, sort_keys=False)).rstrip(),
            "```",
            "",
        ]
    )


def _paired(cells: Sequence[Measured]) -> list[str]:
    compared = against(cells)
    explained = (
        "Differences of the best at each budget, in points over the seeds that both have; ± is their standard error: "
        "over the test images, paired, and, with more than one seed, over seeds. What another seed would change is not "
        "in that of one seed."
    )
    return [compared, "", explained, ""] if compared else []


def against(cells: Sequence[Measured]) -> str:
    """How the best at each budget compares with each other method there, in points: Markdown, "" if there is none."""
    bests = {budget: found[0].method for budget, found in _by_budget(rows(cells)).items()}
    found = [each for budget, best in bests.items() for each in differences(cells, best) if each.budget == budget]
    if not found:
        return ""
    titles = [f"{best} at {budget}" for budget, best in bests.items()]
    lines = ["| against | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for other in sorted({each.other for each in found}):
        by_budget = {each.budget: _difference(each) for each in found if each.other == other}
        lines.append(f"| {other} | " + " | ".join(by_budget.get(budget, "") for budget in bests) + " |")
    return "\n".join(lines)


def _by_budget(table: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows at each budget, the best first."""
    budgets = dict.fromkeys(row.budget for row in table if row.budget is not None)
    return {budget: [row for row in table if row.budget == budget] for budget in budgets}


def _difference(found: Difference) -> str:
    return f"{found.mean:+.2f}" if found.error is None else f"{found.mean:+.2f} ± {found.error:.2f}"


def _short(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
