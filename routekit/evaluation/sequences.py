"""Which sequence of passes meets an aim: found on validation images, by what each pass answers and costs.

A sequence has one, two or three passes, the cheapest first. An image goes on to the next pass if its answer is not
certain enough. One pass alone is a static network: pruning is the simplest sequence.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from routekit.cost.passes import PassCost
from routekit.routing.certainty import certainties

MOST_PASSES = 3
# How many thresholds of the first of two stops are tried. Of the last stop, all are.
QUANTILES = 24


@dataclass(frozen=True)
class Point:
    """A sequence with its thresholds, and what it does on validation images.

    Attributes:
        passes: The places of its passes among all passes.
        thresholds: For each pass but the last, the certainty up to which an image goes on.
        average: Whether the answer is the mean of the probabilities of all passes so far.
        cost: The mean cost of an image, in the unit of the pass costs.
        right: How many of the images are answered rightly.
        rates: The share of images that gets to each pass.
    """

    passes: tuple[int, ...]
    thresholds: tuple[float, ...]
    average: bool
    cost: float
    right: int
    rates: tuple[float, ...]

    @property
    def sequence(self) -> tuple[tuple[int, ...], bool]:
        """What it is a point of: the passes, and how their answers are combined."""
        return self.passes, self.average


@dataclass(frozen=True)
class Answers:
    """What each pass answers, for images with known labels.

    Args:
        logits: `[passes, N, classes]`, of each pass alone.
        labels: `[N]`.
        rule: How certain an answer is: a name in `certainties`.
    """

    logits: Tensor
    labels: Tensor
    rule: str = "confidence"
    _known: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, passes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Combine passes by the mean of their probabilities.

        Args:
            passes: The places of the passes.

        Returns:
            The certainty of each answer, `[N]`, and whether it is right, `[N]`.
        """
        key = tuple(passes)
        if key not in self._known:
            mean = self.logits[list(key)].float().softmax(dim=2).mean(dim=0)
            right = mean.argmax(dim=1) == self.labels
            self._known[key] = (certainties[self.rule](mean).double().numpy(), right.numpy())
        return self._known[key]

    def right(self, point: Point) -> np.ndarray:
        """Whether each image is answered rightly at a point: `[N]`, bool."""
        return self._at(point, lambda passes: self.of(passes)[1])

    def rates(self, point: Point) -> list[float]:
        """The share of these images that gets to each pass of a point."""
        active, found = np.ones(len(self), dtype=bool), [1.0]
        for place, threshold in enumerate(point.thresholds):
            active = active & (self.of(asked(point.passes, place, average=point.average))[0] <= threshold)
            found.append(float(active.mean()))
        return found

    def sureness(self, point: Point) -> float:
        """The mean probability of the right class at a point.

        It tells networks apart by all images, where right answers tell them apart by those few on which they differ.
        """
        return float(self._at(point, self._of_label).mean())

    def _of_label(self, passes: Sequence[int]) -> np.ndarray:
        """The probability of the right class `[N]` by the mean of passes."""
        mean = self.logits[list(passes)].float().softmax(dim=2).mean(dim=0)
        found: np.ndarray = mean.gather(1, self.labels.unsqueeze(1)).squeeze(1).double().numpy()
        return found

    def _at(self, point: Point, of: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        """What holds of each image at a point `[N]`, by what holds of it after some passes."""
        active = np.ones(len(self), dtype=bool)
        found = np.zeros_like(of(point.passes[:1]))
        for place in range(len(point.passes)):
            passes = asked(point.passes, place, average=point.average)
            found[active] = of(passes)[active]
            if place < len(point.thresholds):
                active &= self.of(passes)[0] <= point.thresholds[place]
        return found


def asked(passes: Sequence[int], place: int, *, average: bool) -> tuple[int, ...]:
    """List the passes that count for the answer after the one at `place` of a sequence."""
    return tuple(passes[: place + 1]) if average else (passes[place],)


def frontier(answers: Answers, costs: Sequence[PassCost], forms: Sequence[int] | None = None) -> list[Point]:
    """Find the points at which no cheaper one of the same sequence answers as many images rightly.

    Args:
        answers: What each pass answers on validation images.
        costs: What each pass costs.
        forms: Of which form each pass is; a sequence has at most one pass of a form. None: each is of its own.

    Returns:
        The points of all sequences, by sequence and cost.
    """
    forms = list(range(len(costs))) if forms is None else forms
    alone = [float(cost(np.ones(1))[0]) for cost in costs]
    order = sorted(range(len(costs)), key=lambda place: alone[place])
    found: list[Point] = []
    for length in range(1, MOST_PASSES + 1):
        for passes in itertools.combinations(order, length):
            if len({forms[each] for each in passes}) == length:
                for average in (False, True)[:length]:
                    found += _pareto(answers, costs, passes, average=average)
    return found


def _pareto(answers: Answers, costs: Sequence[PassCost], passes: tuple[int, ...], *, average: bool) -> list[Point]:
    """The points of a sequence at which no cheaper one answers as many images rightly, the cheapest first."""
    parts = [answers.of(asked(passes, place, average=average)) for place in range(len(passes))]
    every = np.ones(len(answers), dtype=bool)
    thresholds, rates, right = _divided(parts, every)
    cost = np.sum([costs[each](rates[:, place]) for place, each in enumerate(passes)], axis=0)
    order = np.lexsort((-right, cost))
    best = np.maximum.accumulate(right[order])
    kept = order[np.concatenate([[True], best[1:] > best[:-1]])]
    return [
        Point(passes, tuple(thresholds[each]), average, float(cost[each]), int(right[each]), tuple(rates[each]))
        for each in kept.tolist()
    ]


def _divided(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the active images of a sequence in all ways between its passes.

    Args:
        parts: For each pass, the certainty of its answer, `[N]`, and whether that is right, `[N]`.
        active: `[N]`, bool, the images that get to the first of them.

    Returns:
        The thresholds `[K, passes - 1]`, the shares of all images that get to each pass `[K, passes]`, and how many of
        the active images are answered rightly `[K]`.
    """
    (certainty, right), *behind = parts
    here = active.sum()
    rate = here / len(active)
    if not behind:
        return np.empty((1, 0)), np.full((1, 1), rate), np.array([right[active].sum()])
    rows = np.flatnonzero(active)
    rows = rows[np.argsort(certainty[rows], kind="stable")]
    ordered = certainty[rows]
    # A threshold lies half-way between two images. The last one lets all go on.
    goes = np.append(np.flatnonzero(np.diff(ordered) > 0) + 1, here)
    lower, upper = ordered[goes[:-1] - 1], ordered[goes[:-1]]
    # Networks and files decide in float32, in which half-way between two neighbours is one of them.
    middle = ((lower + upper) / 2).astype(np.float32).astype(float)
    cuts = np.append(np.where(middle < upper, middle, lower), 1.0)
    stopped = right[rows].sum() - np.concatenate([[0], np.cumsum(right[rows])])
    if len(behind) == 1:
        answered = np.concatenate([[0], np.cumsum(behind[0][1][rows])])[goes] + stopped[goes]
        rates = np.stack([np.full(len(goes), rate), goes / len(active)], axis=1)
        return cuts[:, None], rates, answered
    found = []
    for place in np.unique(np.linspace(0, len(goes) - 1, QUANTILES).round().astype(int)):
        onward = np.zeros_like(active)
        onward[rows[: goes[place]]] = True
        thresholds, rates, answered = _divided(behind, onward)
        first = np.full((len(answered), 1), cuts[place])
        found.append(
            (
                np.hstack([first, thresholds]),
                np.hstack([np.full_like(first, rate), rates]),
                answered + stopped[goes[place]],
            )
        )
    thresholds, rates, answered = (np.concatenate(each) for each in zip(*found, strict=True))
    return thresholds, rates, answered


def standard_error(first: np.ndarray, second: np.ndarray) -> float:
    """How exactly images tell a difference in accuracy: one standard error of the mean of the paired differences.

    Args:
        first: `[N]`, bool, whether each image is answered rightly.
        second: `[N]`, bool, likewise.

    Returns:
        A fraction.
    """
    return float((first.astype(float) - second.astype(float)).std() / math.sqrt(len(first)))


def best_of_each(points: Sequence[Point]) -> list[Point]:
    """The best point of each sequence; of all, the one comes first that answers most images rightly."""
    found: dict[tuple[tuple[int, ...], bool], Point] = {}
    for point in points:
        known = found.setdefault(point.sequence, point)
        if (point.right, -point.cost) > (known.right, -known.cost):
            found[point.sequence] = point
    return sorted(found.values(), key=lambda point: (-point.right, point.cost))


def choose(
    points: Sequence[Point],
    answers: Answers,
    *,
    cost: float = math.inf,
    right: float = 0.0,
    size: Callable[[Point], float] = lambda point: 0.0,
) -> Point | None:
    """Choose the best point within a cost, or the cheapest that answers enough images rightly.

    Validation images are few: what is better by less than one standard error may be better by chance. So of such
    sequences those of the fewest passes are left, and of these the one that is surest of the right class is chosen.

    Args:
        points: What can be chosen.
        answers: On which images.
        cost: The most that an image may cost, on average. Infinite: the cheapest point is wanted.
        right: How many images are to be answered rightly at least.
        size: The bytes of a point's passes.

    Returns:
        The point; None if there is none.
    """
    fitting = [point for point in points if point.cost <= cost and point.right >= right]
    if not fitting:
        return None
    if math.isinf(cost):
        return min(fitting, key=lambda point: (point.cost, len(point.passes), size(point)))
    best, *_ = each_at_its_best = best_of_each(fitting)
    among = answers.right(best)
    near = [
        point
        for point in each_at_its_best
        if (best.right - point.right) / len(answers) <= standard_error(among, answers.right(point))
    ]
    fewest = min(len(point.passes) for point in near)
    left = [point for point in near if len(point.passes) == fewest]
    return max(left, key=lambda point: (answers.sureness(point), -size(point)))
