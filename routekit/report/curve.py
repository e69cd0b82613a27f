"""The first section of a run's report: accuracy against cost, and what the network does at other thresholds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Any

from routekit.report.page import drawn, html_line, html_table, in_markdown, markdown_table, prose
from routekit.report.settings import Setting, answerer, chosen_of, cost_of, dense_of

HEADING = "Accuracy against cost"
HONEST = (
    "These are figures of test images: to look at, not to choose by. Whoever picks the setting that looks best here "
    "finds that new images are answered worse. "
)
BY_VALIDATION = "To choose another one by validation images, use `routekit {}`."
ONE = "This is the one point that was measured. `routekit evaluate` measures others, if a budget can be set untrained."
STATIC = "This is the one point of this network: every image costs the same."
MOVED = "The larger a threshold, the more images go on to the next answer, which costs more."
ADDED = (
    "The milliseconds of the chosen point were measured on test images. Those of other points are the sum of what "
    "their passes take alone."
)
TAKEN = "Milliseconds are those of one image alone, in torch, where this report was made."
NAMES = (
    "The name of a pass says how it was made, about what share of the multiply-adds it has, and its precision. `dense` "
    "is the network itself. `l1` and `depgraph` are pruned, `distributedk` leaves out units, `resolution` sees smaller "
    "images."
)
# What the slider is called.
FRONTIER = "Passes and thresholds, from the cheapest to the dearest"
THRESHOLD = "Threshold, from the cheapest setting to the dearest; all thresholds move together"
# How many lines of the table stand in a report in Markdown.
LINES = 12


@dataclass(frozen=True)
class Curve:
    """The settings of one network, with its record.

    Attributes:
        record: The record of the run.
        settings: The settings, the cheapest first; the chosen one among them.
    """

    record: Mapping[str, Any]
    settings: Sequence[Setting]

    @classmethod
    def of(cls, record: Mapping[str, Any], settings: Sequence[Setting] = ()) -> "Curve":
        """The curve of a run; where no other settings are known, its one point."""
        return cls(record, settings or [chosen_of(record)])

    @property
    def dense(self) -> Setting | None:
        """The dense network; None where that is not known."""
        return dense_of(self.record)

    @property
    def chosen(self) -> int:
        """The place of the chosen setting."""
        return next(place for place, each in enumerate(self.settings) if each.chosen)

    @property
    def has_ms(self) -> bool:
        """Whether the time of all settings is known."""
        return all(each.ms is not None for each in self.settings)

    @property
    def timed(self) -> bool:
        """Whether the cost is a time: of a ladder, whose passes were timed where they run."""
        return "time" in self.record and self.has_ms

    @property
    def target(self) -> float | None:
        """The target, in the unit of `cost`; None if there is none."""
        if self.timed:
            wanted: float | None = self.record["time"]["target_ms"]
            return wanted
        macs: float | None = self.record["flops"]["target"]
        return None if macs is None else macs / 1e6

    def cost(self, setting: Setting) -> float:
        """The cost of a setting: milliseconds if it is timed, else millions of multiply-adds."""
        return cost_of(setting, timed=self.timed)

    @property
    def caption(self) -> str:
        """How to read the picture."""
        parts = [
            "The ring is this network as it is now.",
            "A dot is this network at another setting." if len(self.settings) > 1 else "",
            "" if self.dense is None else "The star is the dense network.",
            "" if self.target is None else "The dashed line is the target.",
        ]
        said = "Up is more right answers, left is cheaper; both are measured on test images."
        return " ".join([said, *filter(None, parts)])

    @property
    def notes(self) -> list[str]:
        """What has to be known of the settings."""
        if len(self.settings) == 1:
            return [ONE if self.record["routes"]["run_rate"] else STATIC]
        ladder = "passes" in self.record
        said = [HONEST + BY_VALIDATION.format("aim" if ladder else "evaluate"), "" if ladder else MOVED]
        said.append(NAMES if ladder else "")
        return [*filter(None, said), *([ADDED if self.timed else TAKEN] if self.has_ms else [])]

    @property
    def _columns(self) -> dict[str, Callable[[Setting], str]]:
        """What is said of a setting, by the title of the column."""
        dense = self.record["flops"]["dense"]
        columns: dict[str, Callable[[Setting], str]] = {}
        if any(each.thresholds for each in self.settings):
            columns["threshold"] = lambda each: ", ".join(f"{one:.3f}" for one in each.thresholds)
        columns["right, % of test images"] = lambda each: f"{100 * each.accuracy:.2f}"
        if any(each.validation is not None for each in self.settings):
            columns["right, % of validation images"] = lambda each: _percent(each.validation)
        columns["multiply-adds, millions"] = lambda each: f"{each.macs / 1e6:.4g}"
        columns["% of dense"] = lambda each: f"{100 * each.macs / dense:.1f}"
        if self.has_ms:
            columns["milliseconds"] = lambda each: "" if each.ms is None else f"{each.ms:.3f}"
        for place, name in enumerate(self._answerers()):
            columns[f"answered by {name}, %"] = lambda each, at=place: _percent(  # type: ignore[misc]
                each.stops[at] if at < len(each.stops) else None
            )
        if any(each.passes for each in self.settings):
            columns["passes"] = _passes
        return columns

    def _answerers(self) -> list[str]:
        most = max(len(each.stops) for each in self.settings)
        if "passes" in self.record:
            return [f"pass {place + 1}" for place in range(most)] if most > 1 else []
        return [answerer(each["after"]) for each in self.record.get("exits", [])]

    @property
    def head(self) -> list[str]:
        """The titles of the table's columns."""
        return ["setting", *self._columns]

    @property
    def lines(self) -> list[list[str]]:
        """The lines of the table: one for each setting, and one for the dense network where that is known."""
        several = len(self.settings) > 1
        names = [f"{place}{', this network' * each.chosen}" for place, each in enumerate(self.settings, start=1)]
        points = dict(zip(names if several else ["this network"], self.settings, strict=True))
        points |= {} if self.dense is None else {"the dense network": self.dense}
        return [[name, *(say(point) for say in self._columns.values())] for name, point in points.items()]

    def markdown(self, file: str) -> list[str]:
        """The section in Markdown: lines. `file` is that of its picture."""
        every, count = max(1, -(-len(self.settings) // LINES)), len(self.settings)
        shown = [row for place, row in enumerate(self.lines) if place % every == 0 or place in (self.chosen, count)]
        table = markdown_table(self.head, [list(map(in_markdown, row)) for row in shown])
        notes = [line for note in self.notes for line in (in_markdown(note), "")]
        return [f"## {HEADING}", "", f"![{HEADING.lower()}]({file})", "", self.caption, "", *notes, table, ""]

    def html(self, drawing: str, places: Sequence[tuple[float, float]]) -> str:
        """The section as HTML: the picture, a slider over the settings, and all of them in a table.

        The table is there without JavaScript, too, which reads from it what the slider shows.

        Args:
            drawing: The picture, an SVG document.
            places: Where each setting lies in it.

        Returns:
            The HTML.
        """
        points = [
            f" data-x={x:.1f} data-y={y:.1f}{' class=best' if each.chosen else ''}"
            for each, (x, y) in zip(self.settings, places, strict=True)
        ]
        lines = [html_line(map(escape, cells), point) for cells, point in zip_longest(self.lines, points, fillvalue="")]
        table = html_table(self.head, lines, " id=settings", "All settings")
        notes = "".join(f"<p class=note>{prose(note)}</p>" for note in self.notes)
        if len(self.settings) == 1:
            return f"{drawn(drawing, HEADING, self.caption)}{notes}{table}"
        marker = drawing.replace("</svg>", "<circle id=here r=5 /></svg>")
        what = FRONTIER if "passes" in self.record else THRESHOLD
        slider = (
            f"<div id=setting hidden><label for=slider>{what}</label>"
            f"<input type=range id=slider min=0 max={len(self.settings) - 1} value={self.chosen}>"
            "<button type=button id=back>Back to the chosen setting</button><dl id=figures></dl></div>"
        )
        folded = f"<details id=all open><summary>All settings as a table</summary>{table}</details>"
        return f"{drawn(marker, HEADING, self.caption)}{slider}{notes}{folded}"


def _passes(setting: Setting) -> str:
    return ", then ".join(setting.passes) + (" (the mean of their answers)" if setting.average else "")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"
