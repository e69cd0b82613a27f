"""What a comparison says, in words and in Markdown: pure functions of records."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from routekit.cost.macs import CONVENTION
from routekit.report.comparison import Measured, Row, frontier, rows, scales
from routekit.report.differences import Difference, differences


def verdict(cells: Sequence[Measured]) -> str:
    """Say in words who is on the frontier, who is best at each budget, by how much, and whether that may be chance."""
    table = rows(cells)
    sentences = ["On the frontier: " + ", ".join(f"{row.name} ({_figures(row)})" for row in frontier(table)) + "."]
    for budget in dict.fromkeys(row.budget for row in table if row.budget is not None):
        best, *others = (row for row in table if row.budget == budget)
        if others:
            sentences.append(f"At {budget}, {best.method} is best, {_lead(cells, best, others[0])}.")
    for title, cost in list(scales(table).items())[1:]:
        named = ", ".join(f"{row.name} ({row.accuracy:.2f}% in {cost(row):.2f})" for row in frontier(table, cost))
        sentences.append(f"On the frontier by {title}: {named}.")
    return " ".join(sentences)


def _lead(cells: Sequence[Measured], best: Row, second: Row) -> str:
    paired = [
        each for each in differences(cells, best.method) if (each.other, each.budget) == (second.method, second.budget)
    ]
    if not paired:
        return f"{best.accuracy - second.accuracy:.2f} points over {second.method}, no seed being of both"
    (found,) = paired
    doubt = "of which no error is known" if found.error is None else "" if found.clear else "which may be chance"
    seeds = "on the one seed of both" if found.seeds == 1 else f"over the {found.seeds} seeds of both"
    return f"{_difference(found)} points over {second.method} {seeds}" + (f", {doubt}" if doubt else "")


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
            f"fastest form that the runtime has for it ({versions}), on {timings['environment']['device']}."
        )
    return (
        f"Every network began as the same dense one ({100 * first['accuracy']['dense']:.2f}% of the {first['images']} "
        f"{first['split']} images), and was fine-tuned for as many epochs on the same images; smaller networks were "
        "trained before, and of a cascade of whole networks (idk) only what is pruned is trained. Budgets were met on "
        "validation images. "
        f"Costs are {CONVENTION}, routers and exits included; ± is one standard deviation over seeds. "
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
    times = [f"{cost(row):.2f}" for cost in list(scales(table).values())[1:]]
    accuracy = f"{row.accuracy:.2f}{spread}"
    return [row.budget or "none", row.method, accuracy, f"{row.share:.2f}", str(row.seeds), *sizes, *times]


def comparison_page(
    plan: dict[str, Any], cells: Sequence[Measured], table: Sequence[Row], *, picture: str, planned: int, how: str
) -> str:
    """The report in Markdown: what was compared, what came of it, `how` it was measured."""
    best = max((row for row in table if row.budget is not None), key=lambda row: row.accuracy, default=table[0])
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
            against(cells, best.method),
            "",
            "Differences in points over the seeds that both have; ± is their standard error: over the test images, "
            "paired, and, with more than one seed, over seeds.",
            "",
            "The plan:",
            "",
            "```yaml",
            str(yaml.safe_dump(plan, sort_keys=False)).rstrip(),
            "```",
            "",
        ]
    )


def against(cells: Sequence[Measured], method: str) -> str:
    """How `method` compares with each other one, as a Markdown table: mean difference over seeds, in points."""
    found = differences(cells, method)
    budgets = list(dict.fromkeys(each.budget for each in found))
    lines = [f"| {method} against | " + " | ".join(budgets) + " |", "|---" * (len(budgets) + 1) + "|"]
    for other in dict.fromkeys(each.other for each in found):
        by_budget = {each.budget: each for each in found if each.other == other}
        entries = [_difference(by_budget.get(budget)) for budget in budgets]
        lines.append(f"| {other} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:+.2f}" if found.error is None else f"{found.mean:+.2f} ± {found.error:.2f}"


def _short(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
