"""What a ladder can do for an aim, and which of it is best: by answers on validation images, and by the clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from routekit.cost.aim import Aim
from routekit.cost.passes import milliseconds, multiply_adds
from routekit.errors import InputError
from routekit.evaluation.sequences import Answers, Point, frontier, standard_error
from routekit.files import scratch
from routekit.formats.checkpoint import save_network
from routekit.junctions.convert import join
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Machine, count_threads, processor_name
from routekit.pipeline.rungs import PRECISE, Ladder, Rung
from routekit.report.record import without_images
from routekit.runtime.drive import Clock, Passes, Place


@dataclass(frozen=True)
class Choice:
    """All that can be chosen from, for an aim.

    Attributes:
        ladder: The forms.
        aim: The aim.
        machine: Where it runs.
        clock: What times passes.
        rungs: The passes; the last one is the dense network in float32.
        answers: Theirs to validation images.
        tested: Theirs to test images. Nothing is chosen by these.
    """

    ladder: Ladder
    aim: Aim
    machine: Machine
    clock: Clock
    rungs: list[Rung]
    answers: Answers
    tested: Answers

    @classmethod
    def of(cls, ladder: Ladder, aim: Aim, machine: Machine, clock: Clock) -> "Choice":
        """Find what the forms of a ladder answer, in the runtime of an aim. Raises InputError: a package is missing."""
        rungs = ladder.rungs(aim)
        logits = ladder.logits(rungs, aim.where)
        answers, tested = (
            Answers(logits["val"], ladder.data.val.labels),
            Answers(logits["test"], ladder.data.test.labels),
        )
        return cls(ladder, aim, machine, clock, rungs, answers, tested)

    def at(self, aim: Aim) -> "Choice":
        """The same passes for another aim in the same place, at most as large: nothing is searched again."""
        other = replace(self, aim=aim)
        other.__dict__["points"] = self.points
        return other

    @cached_property
    def points(self) -> list[Point]:
        """The sequences of passes, with thresholds, that are not too large. Raises InputError: all are."""
        aim, rungs = self.aim, self.rungs
        if aim.macs is not None:
            costs = [multiply_adds(rung.macs) for rung in rungs]
        else:
            costs = [milliseconds(ms, aim.batch) for ms in self.ladder.times(rungs, self.clock)]
        # The last one, the dense network in float32, may be there only to compare.
        able = range(len(rungs) if PRECISE in aim.precisions else len(rungs) - 1)
        forms = list(self.ladder.forms)
        every = frontier(self.answers, [costs[each] for each in able], [forms.index(rungs[each].form) for each in able])
        found = [point for point in every if self.size(point) <= aim.bytes]
        if not found:
            least = min(rungs[each].bytes for each in able)
            raise InputError(f"aim.max_size={aim.max_size}: the smallest form has {least:,} bytes")
        return found

    def size(self, point: Point) -> float:
        """The bytes of the passes of a point."""
        return sum(self.rungs[each].bytes for each in point.passes)

    def mean_macs(self, point: Point) -> float:
        """The mean multiply-adds of an image at a point, on validation images."""
        return float(np.dot(point.rates, [self.rungs[each].macs for each in point.passes]))

    def drive(self, points: Sequence[Point], images: Tensor) -> list[float]:
        """Drive points, and the dense network after them, in turns: the milliseconds an image of each."""
        with scratch(self.ladder.folder) as made:
            passes = [self.compose(point, made / str(number))[1] for number, point in enumerate(points)]
            driven = self.clock.drive([*passes, self.rungs[-1].passes], images)
        return [each.mean for each in driven]

    def compose(self, point: Point, folder: Path, record: dict[str, Any] | None = None) -> tuple[RoutedNetwork, Passes]:
        """Build the network of a point, and the passes with its thresholds in the runtime of the aim.

        Args:
            point: The point.
            folder: Where the passes are written.
            record: Its record, which files then hold.

        Returns:
            The network, and how its passes are opened.
        """
        rungs = [self.rungs[each] for each in point.passes]
        parts = [self.ladder.network(rung.form) for rung in rungs]
        network = parts[0] if len(parts) == 1 else join(parts, average=point.average)
        if len(parts) > 1:
            network.set_bias(torch.tensor(point.thresholds))
        about: dict[str, Any] = {"classes": list(self.ladder.data.classes)}
        if record is not None:
            about["record"] = without_images(record)
        if self.aim.where == "torch":
            save_network(folder / "network", network, about=about)
            precisions = tuple(rung.precision for rung in rungs)
            return network, Passes(folder / "network", precisions, self.ladder.source)
        from routekit.formats.onnx.passes import write_sequence

        sources = [rung.passes.folder for rung in rungs]
        write_sequence(folder / "passes", sources, network, about)
        return network, Passes(folder / "passes")

    def names(self, point: Point) -> str:
        """A sequence in words."""
        return " > ".join(self.rungs[each].name for each in point.passes)

    def said(self, point: Point) -> dict[str, Any]:
        """How the point was chosen: its accuracy and its loss on validation images, and with what chance it is that."""
        right, dense = self.answers.right(point), self.answers.of([len(self.rungs) - 1])[1]
        lost, error = 100 * float(dense.mean() - right.mean()), 100 * standard_error(dense, right)
        found = {
            "images": len(self.answers),
            "accuracy": float(right.mean()),
            "dense_accuracy": float(dense.mean()),
            "lost_points": lost,
            "standard_error": error,
        }
        if self.aim.max_drop is not None:
            away = (self.aim.max_drop - lost) / error if error else math.inf
            found["chance"] = 0.5 * (1 + math.erf(away / math.sqrt(2)))
        return found

    def point_of(self, record: dict[str, Any]) -> Point:
        """The point of a record."""
        names = [rung.name for rung in self.rungs]
        wanted = [f"{each['form']} {each['precision']}" for each in record["passes"]]
        if not {*wanted} <= {*names}:
            raise InputError(f"{record['run']} holds another choice than its plan says: choose again (`routekit aim`)")
        passes = tuple(map(names.index, wanted))
        return Point(passes, tuple(record["thresholds"]), record["average"], 0.0, 0, ())

    def table(self) -> dict[str, Any]:
        """What no other choice beats in both cost and accuracy on validation images; and each pass alone."""
        unit = "macs" if self.aim.macs is not None else "ms"
        best, found = -1, []
        for point in sorted(self.points, key=lambda each: (each.cost, -each.right)):
            if point.right > best or len(point.passes) == 1:
                best = max(best, point.right)
                found.append(
                    {
                        "passes": [self.rungs[each].name for each in point.passes],
                        "thresholds": list(point.thresholds),
                        "average": point.average,
                        unit: point.cost,
                        "mean_macs": self.mean_macs(point),
                        "bytes": self.size(point),
                        "validation_accuracy": point.right / len(self.answers),
                        "test_accuracy": float(self.tested.right(point).mean()),
                    }
                )
        where = vars(self.clock.place) | {"machine": processor_name()}
        return {"unit": unit, **where, "environment": self.machine.environment(), "points": found}


def place_of(aim: Aim) -> Place:
    """Where the passes of an aim are timed. Raises InputError: more threads than this machine has cores."""
    return Place(aim.where, aim.batch, count_threads(aim.threads))
