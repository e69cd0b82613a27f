"""The table of a comparison and what it says: pure functions of records."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from routekit.cost.macs import CONVENTION
from routekit.errors import InputError


@dataclass(frozen=True)
class Measured:
    """One cell: what was asked for, and the record of what came of it.

    `milliseconds` an image takes, by runtime and batch size; empty if it was not timed.
    """

    method: str
    budget: str | None
    seed: int
    record: dict[str, Any]
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Of the test images, in percent."""
        return 100 * float(self.record["accuracy"]["routed"])

    @property
    def share(self) -> float:
        """Mean cost in percent of the dense network's MACs, routers and exits included."""
        return 100 * float(self.record["flops"]["realized"] / self.record["flops"]["dense"])


@dataclass(frozen=True)
class Row:
    """A method at a budget: means over seeds, and the sample standard deviation (0 for one seed).

    `milliseconds` are those of the seed that was timed.
    """

    method: str
    budget: str | None
    seeds: int
    accuracy: float
    spread: float
    share: float
    parameters: float
    size: float
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How the row is called in a sentence."""
        return self.method if self.budget is None else f"{self.method} at {self.budget}"


def rows(cells: Sequence[Measured]) -> list[Row]:
    """One row for each method at each budget, the cheapest budget first, then the most accurate.

    Raises InputError for records that count costs differently.
    """
    conventions = {cell.record["flops"]["convention"] for cell in cells}
    if conventions - {CONVENTION}:
        raise InputError(f"costs are counted in two ways: {' and '.join(sorted(conventions | {CONVENTION}))}")
    groups: dict[tuple[str, str | None], list[Measured]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.budget), []).append(cell)
    found = [_row(*group, members) for group, members in groups.items()]
    return sorted(found, key=lambda row: (_target(groups[row.method, row.budget]), -row.accuracy, row.method))


def _row(method: str, budget: str | None, cells: Sequence[Measured]) -> Row:
    accuracies = [cell.accuracy for cell in cells]
    sizes = [cell.record["size"] for cell in cells]
    return Row(
        method=method,
        budget=budget,
        seeds=len(cells),
        accuracy=statistics.fmean(accuracies),
        spread=statistics.stdev(accuracies) if len(cells) > 1 else 0.0,
        share=statistics.fmean(cell.share for cell in cells),
        parameters=statistics.fmean(size["parameters"] for size in sizes),
        size=statistics.fmean(size["bytes"] for size in sizes),
        milliseconds=next((cell.milliseconds for cell in cells if cell.milliseconds), {}),
    )


def _target(cells: Sequence[Measured]) -> float:
    flops = cells[0].record["flops"]
    return float(flops["target"] or flops["dense"])


@dataclass(frozen=True)
class Difference:
    """How much more accurate `method` is than `other` at a budget, seed by seed, in points."""

    method: str
    other: str
    budget: str
    mean: float
    error: float | None
    seeds: int


def differences(cells: Sequence[Measured], method: str) -> list[Difference]:
    """`method` against each other method, at each budget, over the seeds that both have.

    `error` is the standard error of the mean difference; None for one seed. The dense network stands at every budget.
    """
    own = {(cell.budget, cell.seed): cell for cell in cells if cell.method == method}
    found = []
    for other in sorted({cell.method for cell in cells} - {method}):
        theirs = {(cell.budget, cell.seed): cell for cell in cells if cell.method == other}
        for budget in sorted({budget for budget, _ in own if budget is not None}):
            pairs = [
                cell.accuracy - theirs[key].accuracy
                for (at, seed), cell in own.items()
                for key in [(at, seed) if (at, seed) in theirs else (None, seed)]
                if at == budget and key in theirs
            ]
            if pairs:
                error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else None
                found.append(Difference(method, other, budget, statistics.fmean(pairs), error, len(pairs)))
    return found


def share(row: Row) -> float:
    """What a row costs, in MACs."""
    return row.share


def frontier(table: Sequence[Row], cost: Callable[[Row], float] = share) -> list[Row]:
    """The rows that no other beats: none is both at least as accurate and at most as dear. The cheapest first."""

    def beaten(row: Row) -> bool:
        return any(
            other.accuracy >= row.accuracy
            and cost(other) <= cost(row)
            and (other.accuracy > row.accuracy or cost(other) < cost(row))
            for other in table
        )

    return sorted((row for row in table if not beaten(row)), key=cost)


def scales(table: Sequence[Row]) -> dict[str, Callable[[Row], float]]:
    """By what a row's cost can be told, title -> cost: in MACs, and in milliseconds where all rows were timed."""
    where = list(table[0].milliseconds) if all(row.milliseconds for row in table) else []
    found: dict[str, Callable[[Row], float]] = {"mean cost, % of the dense network's MACs": share}
    for place in where:
        found[f"ms an image, {place}"] = partial(_milliseconds, place)
    return found


def _milliseconds(place: str, row: Row) -> float:
    return row.milliseconds[place]


def verdict(table: Sequence[Row]) -> str:
    """Say in words who is on the frontier, who is best at each budget, and by how much."""
    sentences = ["On the frontier: " + ", ".join(f"{row.name} ({_figures(row)})" for row in frontier(table)) + "."]
    for budget in dict.fromkeys(row.budget for row in table if row.budget is not None):
        best, *others = (row for row in table if row.budget == budget)
        if others:
            lead = best.accuracy - others[0].accuracy
            spread = max(best.spread, others[0].spread)
            one = min(best.seeds, others[0].seeds) == 1
            doubt = "one seed: no spread is known" if one else f"spread over seeds {spread:.2f}"
            clear = "" if one or lead > spread else ", which is within the spread"
            sentences.append(
                f"At {budget}, {best.method} is best, {lead:.2f} points over {others[0].method} ({doubt}){clear}."
            )
    for title, cost in list(scales(table).items())[1:]:
        named = ", ".join(f"{row.name} ({row.accuracy:.2f}% in {cost(row):.2f})" for row in frontier(table, cost))
        sentences.append(f"On the frontier by {title}: {named}.")
    return " ".join(sentences)


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
            verdict(table) + done,
            "",
            f"![accuracy against cost]({picture})",
            "",
            markdown(table),
            "",
            how,
            "",
            against(cells, best.method),
            "",
            "Differences in points, seed by seed; ± is the standard error of their mean.",
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
