"""The report of a comparison in Markdown, and the parts that its page has in common with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from routekit.macs import CONVENTION
from routekit.report.comparison import (
    Measured,
    Row,
    dense_accuracy,
    dense_record,
    frontier,
    lower_edge,
    placed,
    rows,
    scales,
)
from routekit.report.differences import differences
from routekit.report.verdict import by_budget, difference, findings

PAIRED = (
    "Differences of the best at each budget, in points over the seeds that both have; ± is their standard error: over "
    "the test images, paired, and, with more than one seed, over seeds. What another seed would change is not in that "
    "of one seed."
)


@dataclass(frozen=True)
class Compared:
    """What a report is made of: the plan, the cells that are done of those `planned`, and what was timed, if it was."""

    plan: Mapping[str, Any]
    cells: Sequence[Measured]
    planned: int
    timings: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """What was compared, in one line: networks that were there before are no methods."""
        methods = {cell.method for cell in self.cells if not cell.given}
        return f"{self.plan['shared']['model.name']} on {self.cells[0].record['data']}: {len(methods)} methods compared"

    @property
    def findings(self) -> list[str]:
        """What it says, the most important first, and how much of it is done."""
        done = len(self.cells)
        return [*findings(self.cells), *([f"{done} of {self.planned} cells are done."] if done < self.planned else [])]

    @property
    def yaml(self) -> str:
        """The plan as a file."""
        return str(yaml.safe_dump(dict(self.plan), sort_keys=False)).rstrip()


def comparison_page(compared: Compared, picture: str) -> str:
    """The report in Markdown: what came of it, on which terms; `picture` is a file beside it."""
    table = rows(compared.cells)
    first, *more = compared.findings
    lines = [f"# {compared.title}", "", f"**{first}**", "", *(f"- {sentence}" for sentence in more), ""]
    lines += [f"![accuracy against cost]({picture})", "", reading(compared.cells), ""]
    lines += [markdown(table), "", *(f"- {explained}" for explained in names(compared.cells))]
    paired = against(compared.cells)
    if paired:
        lines += ["", "## Differences, paired", "", _table(*paired), "", PAIRED]
    lines += ["", "## How it was measured", "", how_measured(compared.cells, compared.timings), ""]
    return "\n".join([*lines, "## The plan", "", "```yaml", compared.yaml, "```", ""])


def markdown(table: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    best = frontier(table)
    lines = [[*figures(row, table), "yes" if row in best else ""] for row in table]
    return _table([*columns(table), "on the frontier"], lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = "|---" * len(head) + "|"
    first, *more = ["| " + " | ".join(entries) + " |" for entries in [head, *lines]]
    return "\n".join([first, rule, *more])


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
    return [row.budget or "none", row.label, accuracy, f"{row.share:.2f}", str(row.seeds), *sizes, *times]


def reading(cells: Sequence[Measured]) -> str:
    """How to read the picture."""
    table, dense = rows(cells), dense_accuracy(cells)
    said = (
        f"Up and to the left is better. The wide grey steps are the frontier: what no other row beats. The dotted "
        f"line is the dense network that all began with: {dense:.2f}%, at 100% of the cost."
    )
    edge = lower_edge(table, dense)
    if edge is None:
        return said
    below = ", ".join(f"{row.name} ({row.accuracy:.2f}%)" for row in table if row.accuracy < edge)
    return f"{said} Arrows at the lower edge stand for what lies below {edge:.0f}%: {below}."


def names(cells: Sequence[Measured]) -> list[str]:
    """What is behind the methods' names that do not say it, Markdown."""
    said = []
    for method, label, given in dict.fromkeys((cell.method, cell.label, cell.given) for cell in cells):
        *pruned, last = method.split("+")
        if given:
            said.append(
                f"`{label}`: a smaller network that was there before (`--smaller`); nothing of it is trained here."
            )
        elif last == "idk":
            end = f"; the last of them is pruned ({', '.join(pruned)})" if pruned else ""
            said.append(
                f"`{method}`: a cascade of whole networks, the smaller ones first: the next one is asked where one "
                f"does not know{end}."
            )
    return said


def how_measured(cells: Sequence[Measured], timings: Mapping[str, Any] | None = None) -> str:
    """On which terms, and where and when."""
    first = dense_record(cells)
    machines, dates, torches, threads = (
        sorted({each.record["environment"][of] for each in cells}) for of in ("device", "date", "torch", "threads")
    )
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    ran = f"{', '.join(machines)}; torch {', '.join(torches)}; threads: {', '.join(map(str, threads))}"
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
        f"Costs are {CONVENTION}, routers and exits included; in the table and the picture, ± is one standard "
        f"deviation over seeds. Measured {when} on {ran}.{timed}"
    )


def against(cells: Sequence[Measured]) -> tuple[list[str], list[list[str]]] | None:
    """How the best at each budget compares with each other method there, in points: titles and lines, if any."""
    bests = {budget: found[0] for budget, found in by_budget(rows(cells)).items()}
    found = [
        each for budget, best in bests.items() for each in differences(cells, best.method) if each.budget == budget
    ]
    if not found:
        return None
    labels = {cell.method: cell.label for cell in cells}
    lines = []
    for other in sorted({each.other for each in found}):
        by = {each.budget: difference(each) for each in found if each.other == other}
        lines.append([labels[other], *(by.get(budget, "") for budget in bests)])
    return ["against", *(best.name for best in bests.values())], lines


def _short(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
