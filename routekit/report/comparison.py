"""The table of a comparison: pure functions of records."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from routekit.errors import InputError
from routekit.macs import CONVENTION


@dataclass(frozen=True)
class Measured:
    """One cell: what was asked for, and the record of what came of it.

    `milliseconds` an image takes, by runtime and batch size; empty if it was not timed. `given` is a network that was
    there before, and is measured as it is.
    """

    method: str
    budget: str | None
    seed: int
    record: dict[str, Any]
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    given: bool = False

    @property
    def label(self) -> str:
        """What readers know it by: its method, or, of a network that was given, its model and what was made of it."""
        if not self.given:
            return self.method
        made = "" if self.record["method"] == "dense" else f" {self.record['method']}"
        return f"{self.record['model']}{made} as it is"

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

    `milliseconds` are those of the seed that was timed; `label` is what readers know the method by.
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

    @property
    def name(self) -> str:
        """How the row is called in a sentence."""
        return self.label if self.budget is None else f"{self.label} at {self.budget}"


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
        spread=deviation(accuracies),
        share=statistics.fmean(cell.share for cell in cells),
        parameters=statistics.fmean(size["parameters"] for size in sizes),
        size=statistics.fmean(size["bytes"] for size in sizes),
        label=cells[0].label,
        milliseconds=next((cell.milliseconds for cell in cells if cell.milliseconds), {}),
    )


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation over seeds; 0 for one seed, of which none is known."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _target(cells: Sequence[Measured]) -> float:
    flops = cells[0].record["flops"]
    return float(flops["target"] or flops["dense"])


def dense_record(cells: Sequence[Measured]) -> dict[str, Any]:
    """A record whose "dense" accuracy is that of the network that all began with.

    What the dense network's own record calls so is what came of fine-tuning it further.
    """
    return next((cell for cell in cells if cell.given or cell.method != "dense"), cells[0]).record


def dense_accuracy(cells: Sequence[Measured]) -> float:
    """Of the network that all began with, in percent."""
    return 100 * float(dense_record(cells)["accuracy"]["dense"])


def lower_edge(table: Sequence[Row], dense: float) -> float | None:
    """Where a picture of accuracies ends below, percent, so that those near the dense network's can be told apart.

    Three times as far below it as the row in the middle is, three points at least; None if no row is so far below.
    """
    edge = math.floor(dense - max(3.0, 3 * statistics.median(dense - row.accuracy for row in table)))
    return edge if min(row.accuracy for row in table) < edge else None


def share(row: Row) -> float:
    """What a row costs, in MACs."""
    return row.share


def frontier(table: Sequence[Row], cost: Callable[[Row], float] = share) -> list[Row]:
    """The rows that no other beats: none is both at least as accurate and at most as dear. The cheapest first.

    Who has no place on the scale of `cost` (`placed`) neither beats nor is beaten.
    """
    table = placed(table, cost)

    def beaten(row: Row) -> bool:
        return any(
            other.accuracy >= row.accuracy
            and cost(other) <= cost(row)
            and (other.accuracy > row.accuracy or cost(other) < cost(row))
            for other in table
        )

    return sorted((row for row in table if not beaten(row)), key=cost)


def scales(table: Sequence[Row]) -> dict[str, Callable[[Row], float]]:
    """By what a row's cost can be told, title -> cost: in MACs, and in milliseconds (NaN for rows not timed so)."""
    where = dict.fromkeys(place for row in table for place in row.milliseconds)
    found: dict[str, Callable[[Row], float]] = {"mean cost, % of the dense network's MACs": share}
    for place in where:
        found[f"ms an image, {place}"] = partial(_milliseconds, place)
    return found


def placed(table: Sequence[Row], cost: Callable[[Row], float]) -> list[Row]:
    """The rows of which this cost is known."""
    return [row for row in table if math.isfinite(cost(row))]


def _milliseconds(place: str, row: Row) -> float:
    return row.milliseconds.get(place, math.nan)
