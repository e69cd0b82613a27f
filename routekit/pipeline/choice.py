"""What a ladder can do for an aim, and which of it is best: by answers on validation images, and by the clock."""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from routekit.cost.aim import Aim, check_exactness
from routekit.cost.passes import milliseconds, multiply_adds
from routekit.errors import InputError
from routekit.evaluation.sequences import Answers, Point, choose, frontier, standard_error
from routekit.formats.checkpoint import save_network
from routekit.junctions.convert import join
from routekit.macs import describe
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Machine, processor_name
from routekit.pipeline.rungs import PRECISE, Ladder, Rung, drawn
from routekit.runtime.drive import Clock, Passes, Place

# A sequence takes a little more than the sum of its passes alone. So it is driven on validation images, and chosen anew
# for what it took, at most so often, unless it is as near as this to the time that is wanted.
TRIES, NEAR = 5, 0.02
# What every error says after training.
KEPT = "; the trained forms are kept: choose again, for another aim (`routekit aim`)"
# How many validation images are driven.
DRIVEN = 1024


@dataclass(frozen=True)
class Expected:
    """The milliseconds that were wanted, and those of validation images; None where no time was wanted."""

    target: float | None
    ms: float | None

    @property
    def met(self) -> bool:
        """Whether it takes no longer than was wanted."""
        return self.target is not None and self.ms is not None and self.ms <= (1 + NEAR) * self.target


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

    def choose(self) -> tuple[Point, Expected]:
        """The point that meets the aim, and its time on validation images. Raises InputError: none does."""
        aim = self.aim
        if aim.max_drop is not None:
            check_exactness(aim.max_drop, len(self.answers))
        if aim.macs is not None:
            point = choose(self.points, self.answers, cost=aim.macs, size=self.size)
            if point is None:
                least = min(self.points, key=lambda each: each.cost)
                raise InputError(
                    f"a mean of {describe(aim.macs)} is out of reach: the cheapest form, {self.names(least)}, costs "
                    f"{describe(least.cost)}"
                )
            return point, Expected(None, None)
        dense = self.answers.of([len(self.rungs) - 1])[1].sum()
        images = drawn(self.ladder.data.val, DRIVEN)
        if aim.max_drop is not None:
            # Rounded: of 1,000 images, 0.7 points are seven.
            enough = dense - round(aim.max_drop / 100 * len(self.answers), 6)
            point = choose(self.points, self.answers, right=float(enough), size=self.size)
            if point is None:
                best = max(self.points, key=lambda each: each.right)
                lost = 100 * (dense - best.right) / len(self.answers)
                raise InputError(
                    f"aim.max_drop={aim.max_drop:g} is out of reach: {self.names(best)} loses {lost:.2f} points on "
                    f"validation images, and no sequence less{KEPT}"
                )
            return point, Expected(None, self._drive(point, images)[0])
        return self._in_time(images)

    def _in_time(self, images: Tensor) -> tuple[Point, Expected]:
        """The best point within a time, as it takes when it is driven."""
        aim, ratio = self.aim, 1.0
        target = aim.ms
        if target is None:
            assert aim.speedup is not None
            (dense,) = self.clock.drive([self.rungs[-1].passes], images)
            target = dense.mean / aim.speedup
        # What was driven, with the target of that minute: for a speed-up, it is the dense network's time that counts.
        tried: dict[Point, Expected] = {}
        for _ in range(TRIES):
            point = choose(self.points, self.answers, cost=target * ratio, size=self.size)
            if point is None or point in tried:
                break
            ms, dense_ms = self._drive(point, images)
            target = target if aim.speedup is None else dense_ms / aim.speedup
            tried[point] = Expected(target, ms)
            self.machine.hooks.say(f"{self.names(point)}: {ms:.3f} ms an image, for {target:.3f}")
            if abs(ms / target - 1) <= NEAR:
                break
            ratio = point.cost / ms
        if not any(each.met for each in tried.values()):
            tried = self._alone(target, images)
        best = max((point for point, each in tried.items() if each.met), key=lambda point: point.right)
        return best, tried[best]

    def _alone(self, target: float, images: Tensor) -> dict[Point, Expected]:
        """The fastest passes alone, driven. Raises InputError: none of them meets a target."""
        alone = [point for point in sorted(self.points, key=lambda each: each.cost) if len(point.passes) == 1][:3]
        times = self.clock.drive([self.rungs[point.passes[0]].passes for point in alone], images)
        found = {point: Expected(target, each.mean) for point, each in zip(alone, times, strict=True)}
        if not any(each.met for each in found.values()):
            said = [
                f"{self.names(point)} takes {each.ms:.3f} ms ({point.right / len(self.answers):.1%} on validation)"
                for point, each in found.items()
            ]
            wanted = "" if self.aim.speedup is None else f"aim.speedup={self.aim.speedup:g}, or "
            raise InputError(f"{wanted}{target:.3g} ms an image, is out of reach: {'; '.join(said)}{KEPT}")
        return found

    def _drive(self, point: Point, images: Tensor) -> tuple[float, float]:
        """Milliseconds an image of a point, and of the dense network, in turns."""
        with TemporaryDirectory(dir=self.ladder.folder) as made:
            _, passes = self.compose(point, Path(made))
            driven, dense = self.clock.drive([passes, self.rungs[-1].passes], images)
        return driven.mean, dense.mean

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
            about["record"] = {key: value for key, value in record.items() if key != "right"}
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

    def frontier(self) -> dict[str, Any]:
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if aim.threads is not None and aim.threads > cores:
        raise InputError(f"aim.threads={aim.threads}: this machine has {cores} cores")
    return Place(aim.where, aim.batch, aim.threads or cores)
