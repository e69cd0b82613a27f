"""The report of a comparison in Markdown, and the parts that the HTML page shares with it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from routekit.macs import CONVENTION
from routekit.report.comparison import Measured, Row, dense_accuracy, dense_record, frontier, lower_edge, rows, scales
from routekit.report.differences import differences
from routekit.report.page import MARKS, in_markdown, markdown_table
from routekit.report.verdict import by_budget, difference, findings

PAIRED = (
    "Differences of the best at each budget, in points over the seeds that both have; ± is their standard error: over "
    "the test images, paired, and, with more than one seed, over seeds. What another seed would change is not in that "
    "of one seed."
)


@dataclass(frozen=True)
class Compared:
    """The material of a report.

    `cells` are those that are done, of the `planned` ones. `timings` are None if no network was timed.
    """

    plan: Mapping[str, Any]
    cells: Sequence[Measured]
    planned: int
    timings: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The title, one line. Networks that were given do not count as methods."""
        methods = {cell.method for cell in self.cells if not cell.given}
        return f"{self.plan['shared']['model.name']} on {self.cells[0].record['data']}: {len(methods)} methods compared"

    @property
    def findings(self) -> list[str]:
        """The findings, the most important first, and how many cells are done."""
        done = len(self.cells)
        return [*findings(self.cells), *([f"{done} of {self.planned} cells are done."] if done < self.planned else [])]

    @property
    def yaml(self) -> str:
        """The plan as YAML."""
        return str(yaml.safe_dump(dict(self.plan), sort_keys=False)).rstrip()


def comparison_page(compared: Compared, picture: str) -> str:
    """Write the report of a comparison in Markdown: the findings, the table, the terms.

    Args:
        compared: What was compared.
        picture: The file name of the picture, which lies beside the report.

    Returns:
        The text.
    """
    first, *more = compared.findings
    lines = [f"# {in_markdown(compared.title)}", "", f"**{in_markdown(first)}**", ""]
    lines += [*(f"- {in_markdown(sentence)}" for sentence in more), ""]
    lines += [f"![accuracy against cost]({picture})", "", in_markdown(reading(compared.cells)), ""]
    lines += [markdown(rows(compared.cells)), "", *(f"- {in_markdown(each)}" for each in names(compared.cells))]
    if paired := against(compared.cells):
        lines += ["", "## Differences, paired", "", _table(*paired), "", PAIRED]
    lines += ["", "## How it was measured", "", in_markdown(how_measured(compared.cells, compared.timings)), ""]
    # A fence that is longer than any in the plan.
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", compared.yaml))]))
    return "\n".join([*lines, "## The plan", "", f"{fence}yaml", compared.yaml, fence, ""])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table in which all entries are words: a sign that ends a cell ends a code, too."""
    plain = [[MARKS.sub(r"\\\g<0>", " ".join(entry.split())) for entry in line] for line in (head, *lines)]
    return markdown_table(plain[0], plain[1:])


def markdown(table: Sequence[Row]) -> str:
    """Write the rows as a Markdown table."""
    best, (head, lines) = frontier(table), entries(table)
    marked = [[*line, "yes" if row in best else ""] for row, line in zip(table, lines, strict=True)]
    return _table([*head, "on the frontier"], marked)


def entries(table: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Write the rows as the titles of a table's columns, and the entries of its lines."""
    timed, lines = scales(table)[1:], []
    int8 = list(dict.fromkeys(name for row in table for name in row.quantised))
    for row in table:
        accuracy = f"{row.accuracy:.2f}" + (f" ± {row.spread:.2f}" if row.seeds > 1 else "")
        sizes = [_short(row.parameters), _short(row.size)]
        times = [f"{row.costs[scale]:.2f}" if scale in row.costs else "" for scale in timed]
        times += [f"{row.quantised[name]:.2f}" if name in row.quantised else "" for name in int8]
        lines.append([row.budget or "none", row.label, accuracy, f"{row.share:.2f}", str(row.seeds), *sizes, *times])
    head = ["budget", "method", "accuracy, %", "of the dense MACs, %", "seeds", "parameters", "bytes", *timed]
    return [*head, *(f"accuracy in {name}, %" for name in int8)], lines


def reading(cells: Sequence[Measured]) -> str:
    """Explain how to read the picture."""
    table, dense = rows(cells), dense_accuracy(cells)
    text = (
        f"Up and to the left is better. The wide grey steps are the frontier: what no other row beats. The dotted "
        f"line is the dense network that all began with: {dense:.2f}%, at 100% of the cost."
    )
    edge = lower_edge(table, dense)
    if edge is None:
        return text
    below = ", ".join(f"{row.name} ({row.accuracy:.2f}%)" for row in table if row.accuracy < edge)
    return f"{text} Arrows at the lower edge stand for what lies below {edge:.0f}%: {below}."


def names(cells: Sequence[Measured]) -> list[str]:
    """Explain the names of methods that do not explain themselves."""
    lines = []
    for method, cell in {cell.method: cell for cell in cells}.items():
        *pruned, last = method.split("+")
        if cell.given:
            lines.append(
                f"`{cell.label}`: a smaller network that was there before (`--smaller`); nothing of it is trained here."
            )
        elif last == "idk":
            end = f"; the last of them is pruned ({', '.join(pruned)})" if pruned else ""
            lines.append(
                f"`{method}`: a cascade of whole networks, the smaller ones first: the next one is asked where one "
                f"does not know{end}."
            )
    return lines


def how_measured(cells: Sequence[Measured], timings: Mapping[str, Any] | None = None) -> str:
    """Describe on which terms the cells were measured, and where and when.

    Args:
        cells: The cells that are done.
        timings: The document of timings. None: nothing was timed.

    Returns:
        One paragraph.
    """
    first = dense_record(cells)
    machines, dates, torches, threads = (
        sorted({each.record["environment"][of] for each in cells}) for of in ("device", "date", "torch", "threads")
    )
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    ran = f"{', '.join(machines)}; torch {', '.join(torches)}; threads: {', '.join(map(str, threads))}"
    timed = ""
    if timings is not None and any(cell.milliseconds for cell in cells):
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
    """Compare the best method at each budget with each other method there, in points.

    Returns:
        The titles and the lines of a table; None if no seed is of two methods.
    """
    bests = [found[0] for found in by_budget(rows(cells)).values()]
    leads: dict[tuple[str, str | None], str] = {
        (each.other, each.budget): difference(each)
        for best in bests
        for each in differences(cells, best.method)
        if each.budget == best.budget
    }
    if not leads:
        return None
    labels = {cell.method: cell.label for cell in cells}
    others = sorted({other for other, _ in leads})
    lines = [[labels[other], *(leads.get((other, best.budget), "") for best in bests)] for other in others]
    return ["against", *(best.name for best in bests)], lines


def _short(number: float) -> str:
    return f"{number / 1e6:.2f}M" if number >= 1e6 else f"{number / 1e3:.0f}k"
