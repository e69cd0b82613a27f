"""What a ladder can do for an aim, and which of it is best: by answers on validation images, and by the clock."""

import math
import os
from collections.abc import Sequence
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

# A sequence takes a little more than the sum of its passes alone. So it is driven on validation images beside the best
# pass alone, and chosen anew for what it took: at most so often, unless it is as near as this to the time wanted.
TRIES, NEAR = 5, 0.02
# What every error says after training.
KEPT = "; the trained forms are kept: choose again, for another aim (`routekit aim`)"
# How many validation images are driven, and at most how many points of a kind beside each other.
DRIVEN, SEVERAL = 1024, 3


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
        images = drawn(self.ladder.data.val, DRIVEN)
        return self._fastest(images) if aim.max_drop is not None else self._in_time(images)

    @property
    def _kinds(self) -> tuple[list[Point], list[Point]]:
        """The passes alone, and the sequences of several."""
        alone = [point for point in self.points if len(point.passes) == 1]
        return alone, [point for point in self.points if len(point.passes) > 1]

    def _in_time(self, images: Tensor) -> tuple[Point, Expected]:
        """The best point within a time, as it takes when it is driven."""
        aim, kinds, slower = self.aim, self._kinds, [1.0, 1.0]
        target = math.nan if aim.ms is None else aim.ms
        if aim.speedup is not None:
            target = self._drive([], images)[0] / aim.speedup
        # What was driven, with the target of that minute: for a speed-up, it is the dense network's time that counts.
        tried: dict[Point, Expected] = {}
        for _ in range(TRIES):
            new = {}
            for kind, points in enumerate(kinds):
                point = choose(points, self.answers, cost=target / slower[kind], size=self.size)
                if point is not None and point not in tried:
                    new[kind] = point
            if not new:
                break
            *times, dense = self._drive(list(new.values()), images)
            target = target if aim.speedup is None else dense / aim.speedup
            for (kind, point), ms in zip(new.items(), times, strict=True):
                tried[point] = Expected(target, ms)
                slower[kind] = ms / point.cost
                self.machine.hooks.say(f"{self.names(point)}: {ms:.3f} ms an image, for {target:.3f}")
            if all(abs(slower[kind] * point.cost / target - 1) <= NEAR for kind, point in new.items()):
                break
        met = [point for point, each in tried.items() if each.met]
        if not met:
            tried = self._alone(target, images)
            met = [point for point, each in tried.items() if each.met]
        best = choose(met, self.answers, cost=max(point.cost for point in met), size=self.size)
        assert best is not None
        return best, tried[best]

    def _alone(self, target: float, images: Tensor) -> dict[Point, Expected]:
        """The fastest passes alone, driven. Raises InputError: none of them meets a target."""
        alone = sorted(self._kinds[0], key=lambda each: each.cost)[:SEVERAL]
        times = self._drive(alone, images)
        found = {point: Expected(target, ms) for point, ms in zip(alone, times, strict=False)}
        if not any(each.met for each in found.values()):
            said = [
                f"{self.names(point)} takes {each.ms:.3f} ms ({point.right / len(self.answers):.1%} on validation)"
                for point, each in found.items()
            ]
            wanted = "" if self.aim.speedup is None else f"aim.speedup={self.aim.speedup:g}, or "
            raise InputError(f"{wanted}{target:.3g} ms an image, is out of reach: {'; '.join(said)}{KEPT}")
        return found

    def _fastest(self, images: Tensor) -> tuple[Point, Expected]:
        """The fastest point, driven, that loses no more accuracy than it may. Raises InputError: all lose more."""
        drop, total = self.aim.max_drop, len(self.answers)
        assert drop is not None
        dense = self.answers.of([len(self.rungs) - 1])[1].sum()
        # Rounded: of 1,000 images, 0.7 points are seven.
        enough = dense - round(drop / 100 * total, 6)
        # Driven, they take a little longer than by the table: so the fastest of each kind are compared.
        able: list[Point] = []
        for points in self._kinds:
            cheapest: dict[tuple[tuple[int, ...], bool], Point] = {}
            for point in sorted(points, key=lambda each: each.cost):
                if point.right >= enough:
                    cheapest.setdefault((point.passes, point.average), point)
            able += list(cheapest.values())[:SEVERAL]
        if not able:
            best = max(self.points, key=lambda each: each.right)
            lost = 100 * (dense - best.right) / total
            raise InputError(
                f"aim.max_drop={drop:g} is out of reach: {self.names(best)} loses {lost:.2f} points on validation "
                f"images, and no sequence less{KEPT}"
            )
        times = self._drive(able, images)
        ms, point = min(zip(times, able, strict=False), key=lambda each: (each[0], len(each[1].passes)))
        return point, Expected(None, ms)

    def _drive(self, points: Sequence[Point], images: Tensor) -> list[float]:
        """Milliseconds an image of points, and then of the dense network, in turns."""
        with TemporaryDirectory(dir=self.ladder.folder) as made:
            passes = [self.compose(point, Path(made) / str(number))[1] for number, point in enumerate(points)]
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
