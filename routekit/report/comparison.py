"""The table of a comparison: pure functions of records."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, stdev
from typing import Any

from routekit.errors import InputError
from routekit.macs import CONVENTION

MACS = "mean cost, % of the dense network's MACs"


@dataclass(frozen=True)
class Measured:
    """A cell that is done, with its record.

    `milliseconds` is the time of an image by runtime and batch size. It is empty if the network was not timed.
    `quantised` is the accuracy on test images in int8, a fraction, by runtime. `given` marks a network that existed
    before the comparison. The comparison measures it and does not train it.
    """

    method: str
    budget: str | None
    seed: int
    record: dict[str, Any]
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    quantised: Mapping[str, float] = field(default_factory=dict)
    given: bool = False

    @property
    def label(self) -> str:
        """The name for readers: the method, or the model of a given network and how it was made."""
        if not self.given:
            return self.method
        made = "" if self.record["method"] == "dense" else f" {self.record['method']}"
        return f"{self.record['model']}{made} as it is"

    @property
    def accuracy(self) -> float:
        """The accuracy on test images, in percent."""
        return 100 * float(self.record["accuracy"]["routed"])

    @property
    def share(self) -> float:
        """The mean cost in percent of the dense network's MACs, routers and exits included."""
        return 100 * float(self.record["flops"]["realized"] / self.record["flops"]["dense"])


@dataclass(frozen=True)
class Row:
    """A method at a budget: means over seeds, and the sample standard deviation (0 for one seed).

    `label` is the method's name for readers. `milliseconds` and `quantised`, the accuracy in percent in int8, by
    runtime, are those of the first seed that was timed.
    """

    method: str
    budget: str | None
    seeds: int
    accuracy: float
    spread: float
    share: float
    parameters: float
    size: float
    label: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    quantised: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the row in a sentence."""
        return self.label if self.budget is None else f"{self.label} at {self.budget}"

    @property
    def costs(self) -> dict[str, float]:
        """The cost on each scale, by title: in percent of the dense MACs, and in milliseconds where it was timed."""
        return {MACS: self.share} | {f"ms an image, {place}": time for place, time in self.milliseconds.items()}


def rows(cells: Sequence[Measured]) -> list[Row]:
    """Make one row for each method at each budget: the cheapest budget first, then the most accurate method.

    Raises InputError if the records count costs differently.
    """
    conventions = {cell.record["flops"]["convention"] for cell in cells} | {CONVENTION}
    if len(conventions) > 1:
        raise InputError(f"costs are counted in two ways: {' and '.join(sorted(conventions))}")
    groups: dict[tuple[str, str | None], list[Measured]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.budget), []).append(cell)

    def place(row: Row) -> tuple[float, float, str]:
        flops = groups[row.method, row.budget][0].record["flops"]
        return flops["target"] or flops["dense"], -row.accuracy, row.method

    return sorted(map(_row, groups.values()), key=place)


def _row(cells: Sequence[Measured]) -> Row:
    """The row of all seeds of a method at a budget."""
    accuracies = [cell.accuracy for cell in cells]
    sizes = [cell.record["size"] for cell in cells]
    return Row(
        method=cells[0].method,
        budget=cells[0].budget,
        seeds=len(cells),
        accuracy=fmean(accuracies),
        spread=deviation(accuracies),
        share=fmean(cell.share for cell in cells),
        parameters=fmean(size["parameters"] for size in sizes),
        size=fmean(size["bytes"] for size in sizes),
        label=cells[0].label,
        milliseconds=next((cell.milliseconds for cell in cells if cell.milliseconds), {}),
        quantised=next(
            ({name: 100 * share for name, share in cell.quantised.items()} for cell in cells if cell.quantised), {}
        ),
    )


def deviation(values: Sequence[float]) -> float:
    """Compute the sample standard deviation; 0 for one value, which has none."""
    return stdev(values) if len(values) > 1 else 0.0


def dense_record(cells: Sequence[Measured]) -> dict[str, Any]:
    """Find a record whose "dense" accuracy is that of the network that all methods began with.

    In the record of the method "dense", it is the accuracy after more fine-tuning.
    """
    return next((cell for cell in cells if cell.given or cell.method != "dense"), cells[0]).record


def dense_accuracy(cells: Sequence[Measured]) -> float:
    """The accuracy of the network that all methods began with, in percent."""
    return 100 * float(dense_record(cells)["accuracy"]["dense"])


def lower_edge(table: Sequence[Row], dense: float) -> float | None:
    """Choose the lowest accuracy that a picture shows, so that rows near the dense network can be told apart.

    The edge is three times as far below the dense network as the median row, and at least three points below it.

    Args:
        table: The rows.
        dense: The accuracy of the network that all methods began with, percent.

    Returns:
        The edge in percent; None if no row is below it.
    """
    edge = math.floor(dense - max(3.0, 3 * median(dense - row.accuracy for row in table)))
    return edge if min(row.accuracy for row in table) < edge else None


def frontier(table: Sequence[Row], scale: str = MACS) -> list[Row]:
    """Find the rows that no other row beats: none is at least as accurate and at most as expensive.

    Rows without a cost on this scale do not take part.

    Args:
        table: The rows.
        scale: How the cost is measured, one of `scales`.

    Returns:
        The rows of the frontier, the cheapest first.
    """

    def place(row: Row) -> tuple[float, float]:
        return row.costs[scale], -row.accuracy

    best: list[Row] = []
    for row in sorted((row for row in table if scale in row.costs), key=place):
        if not best or row.accuracy > best[-1].accuracy or place(row) == place(best[-1]):
            best.append(row)
    return best


def scales(table: Sequence[Row]) -> list[str]:
    """List the titles of the scales on which rows have a cost: MACs first, then milliseconds of what was timed."""
    return list(dict.fromkeys(scale for row in table for scale in row.costs))
