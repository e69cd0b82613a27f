"""Which point of a ladder meets an aim: what the table promises is driven, and the clock judges."""

import math
import statistics
import sys
from dataclasses import dataclass

from torch import Tensor

from routekit.cost.aim import check_exactness
from routekit.errors import InputError
from routekit.evaluation.sequences import Point, best_of_each, choose
from routekit.macs import describe
from routekit.pipeline.choice import Choice
from routekit.pipeline.rungs import drawn

# A sequence takes a little more than the sum of its passes alone. So the likely ones are driven on validation images,
# beside the best passes alone, and chosen anew for what they took, at most so often. Who takes no more than this share
# longer meets a time.
TRIES, NEAR = 4, 0.02
# Channels are whole: a form that was pruned to a cost may have this share more of it.
SPARE = 0.005
# What every error says after training.
KEPT = "; the trained forms are kept: choose again, for another aim (`routekit aim`)"
# How many validation images are driven, and how many points of a kind beside each other.
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


def meet(choice: Choice) -> tuple[Point, Expected]:
    """Choose the point that meets an aim.

    Args:
        choice: What there is, and the aim.

    Returns:
        The point, and its time on validation images.

    Raises:
        InputError: No point does, or validation images are too few to tell.
    """
    aim = choice.aim
    if aim.max_drop is not None:
        check_exactness(aim.max_drop, len(choice.answers))
    if aim.macs is not None:
        point = choose(choice.points, choice.answers, cost=(1 + SPARE) * aim.macs, size=choice.size)
        if point is None:
            least = min(choice.points, key=lambda each: each.cost)
            raise InputError(
                f"a mean of {describe(aim.macs)} is out of reach: the cheapest form, {choice.names(least)}, costs "
                f"{describe(least.cost)}"
            )
        return point, Expected(None, None)
    images = drawn(choice.ladder.data.val, DRIVEN)
    return fastest(choice, images) if aim.max_drop is not None else in_time(choice, images)


def _kinds(choice: Choice) -> tuple[list[Point], list[Point]]:
    """The passes alone, and the sequences of several."""
    alone = [point for point in choice.points if len(point.passes) == 1]
    return alone, [point for point in choice.points if len(point.passes) > 1]


def in_time(choice: Choice, images: Tensor) -> tuple[Point, Expected]:
    """The best point within a time, as it takes when it is driven."""
    aim, kinds = choice.aim, _kinds(choice)
    target = math.nan if aim.ms is None else aim.ms
    if aim.speedup is not None:
        target = choice.drive([], images)[0] / aim.speedup
    # What was driven, with the target of that minute: for a speed-up, it is the dense network's time that counts.
    tried: dict[Point, Expected] = {}
    # How much longer each sequence took than the table says.
    longer: dict[tuple[tuple[int, ...], bool], float] = {}
    for _ in range(TRIES):
        likely: list[Point] = []
        for points in kinds:
            known = [longer[each] for each in {point.sequence for point in points} if each in longer]
            usual = statistics.median(known) if known else 1.0
            fitting = [point for point in points if point.cost * longer.get(point.sequence, usual) <= target]
            likely += best_of_each(fitting)[:SEVERAL]
            simplest = choose(fitting, choice.answers, cost=sys.float_info.max, size=choice.size)
            likely += [] if simplest is None else [simplest]
        new = [point for point in dict.fromkeys(likely) if point not in tried]
        if not new:
            break
        *times, dense = choice.drive(new, images)
        target = target if aim.speedup is None else dense / aim.speedup
        for point, ms in zip(new, times, strict=True):
            tried[point], longer[point.sequence] = Expected(target, ms), ms / point.cost
            choice.machine.hooks.say(f"{choice.names(point)}: {ms:.3f} ms an image, for {target:.3f}")
    if not any(each.met for each in tried.values()):
        tried = _alone(choice, target, images)
    met = [point for point, each in tried.items() if each.met]
    best = choose(met, choice.answers, cost=sys.float_info.max, size=choice.size)
    assert best is not None
    return best, tried[best]


def _alone(choice: Choice, target: float, images: Tensor) -> dict[Point, Expected]:
    """The fastest passes alone, driven. Raises InputError: none of them meets a target."""
    alone = sorted(_kinds(choice)[0], key=lambda each: each.cost)[:SEVERAL]
    times = choice.drive(alone, images)
    found = {point: Expected(target, ms) for point, ms in zip(alone, times, strict=False)}
    if not any(each.met for each in found.values()):
        said = [
            f"{choice.names(point)} takes {each.ms:.3f} ms ({point.right / len(choice.answers):.1%} on validation)"
            for point, each in found.items()
        ]
        wanted = f"{target:.3g} ms an image"
        if choice.aim.speedup is not None:
            wanted = f"aim.speedup={choice.aim.speedup:g}, or {wanted},"
        raise InputError(f"{wanted} is out of reach: {'; '.join(said)}{KEPT}")
    return found


def fastest(choice: Choice, images: Tensor) -> tuple[Point, Expected]:
    """The fastest point, driven, that loses no more accuracy than it may. Raises InputError: all lose more."""
    drop, total = choice.aim.max_drop, len(choice.answers)
    assert drop is not None
    dense = choice.answers.of([len(choice.rungs) - 1])[1].sum()
    # Rounded: of 1,000 images, 0.7 points are seven.
    enough = dense - round(drop / 100 * total, 6)
    # Driven, they take a little longer than by the table: so the fastest of each kind are compared.
    able: list[Point] = []
    for points in _kinds(choice):
        cheapest: dict[tuple[tuple[int, ...], bool], Point] = {}
        for point in sorted(points, key=lambda each: each.cost):
            if point.right >= enough:
                cheapest.setdefault(point.sequence, point)
        able += list(cheapest.values())[:SEVERAL]
    if not able:
        best = max(choice.points, key=lambda each: each.right)
        lost = 100 * (dense - best.right) / total
        raise InputError(
            f"aim.max_drop={drop:g} is out of reach: {choice.names(best)} loses {lost:.2f} points on validation "
            f"images, and no sequence less{KEPT}"
        )
    times = choice.drive(able, images)
    ms, point = min(zip(times, able, strict=False), key=lambda each: (each[0], len(each[1].passes)))
    return point, Expected(None, ms)
