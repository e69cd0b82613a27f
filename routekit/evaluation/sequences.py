"""Which sequence of passes meets an aim: found on validation images, by what each pass answers and costs.

A sequence has one, two or three passes, the cheapest first. An image goes on to the next pass if its answer is not
certain enough. One pass alone is a static network: pruning is the simplest sequence.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from routekit.routing.certainty import certainties

MOST_PASSES = 3
# How many thresholds of the first of two stops are tried. Of the last stop, all are.
QUANTILES = 48

# The share of images that get to a pass -> what that costs, as a mean over all images.
PassCost = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Point:
    """A sequence with its thresholds, and what it does on validation images.

    Attributes:
        passes: The places of its passes in the ladder.
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


@dataclass(frozen=True)
class Answers:
    """What each pass of a ladder answers, for images with known labels.

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
        found = np.zeros(len(self), dtype=bool)
        active = np.ones(len(self), dtype=bool)
        for place in range(len(point.passes)):
            certainty, right = self.of(asked(point.passes, place, average=point.average))
            found[active] = right[active]
            if place < len(point.thresholds):
                active &= certainty <= point.thresholds[place]
        return found


def asked(passes: Sequence[int], place: int, *, average: bool) -> tuple[int, ...]:
    """List the passes that count for the answer after the one at `place` of a sequence."""
    return tuple(passes[: place + 1]) if average else (passes[place],)


def frontier(answers: Answers, costs: Sequence[PassCost]) -> list[Point]:
    """Find the points at which no cheaper one of the same sequence answers as many images rightly.

    Args:
        answers: What each pass answers on validation images.
        costs: What each pass costs, the cheapest first.

    Returns:
        The points of all sequences, by sequence and cost.
    """
    found: list[Point] = []
    for length in range(1, MOST_PASSES + 1):
        for passes in itertools.combinations(range(len(costs)), length):
            for average in (False, True)[: 1 if length == 1 else 2]:
                found += _pareto(_points(answers, costs, passes, average=average))
    return found


def _points(
    answers: Answers, costs: Sequence[PassCost], passes: tuple[int, ...], *, average: bool
) -> Iterator[tuple[Point, ...]]:
    """All points of a sequence, in parts."""
    count, every = len(answers), np.ones(1)
    parts = [answers.of(asked(passes, place, average=average)) for place in range(len(passes))]
    price = [costs[each] for each in passes]
    (certainty, right), *behind = parts
    if not behind:
        yield (Point(passes, (), average, float(price[0](every)[0]), int(right.sum()), (1.0,)),)
        return
    order, thresholds, goes = _cuts(certainty)
    if len(behind) == 1:
        rates = goes / count
        cost = price[0](every) + price[1](rates)
        rights = _sums(behind[0][1][order])[goes] + right.sum() - _sums(right[order])[goes]
        yield tuple(
            Point(passes, (float(t),), average, float(c), int(r), (1.0, float(rate)))
            for t, c, r, rate in zip(thresholds, cost, rights, rates, strict=True)
        )
        return
    chosen = np.unique(np.linspace(0, len(goes) - 1, QUANTILES).round().astype(int))
    (second, second_right), (_, last_right) = behind
    for first, go in zip(thresholds[chosen], goes[chosen], strict=True):
        there = order[:go]
        stopped = right.sum() - right[there].sum()
        inner, cuts, onwards = _cuts(second[there])
        rates = onwards / count
        cost = price[0](every) + price[1](np.array([go / count])) + price[2](rates)
        rights = stopped + second_right[there].sum() - _sums(second_right[there][inner])[onwards]
        rights = rights + _sums(last_right[there][inner])[onwards]
        yield tuple(
            Point(passes, (float(first), float(t)), average, float(c), int(r), (1.0, float(go / count), float(rate)))
            for t, c, r, rate in zip(cuts, cost, rights, rates, strict=True)
        )


def _cuts(certainty: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images in the order of their certainty, and where a threshold can divide them: it, and how many go on.

    A threshold lies half-way between two images. The last one lets all go on.
    """
    order = np.argsort(certainty, kind="stable")
    ordered = certainty[order]
    goes = np.flatnonzero(np.diff(ordered) > 0) + 1
    thresholds = np.append((ordered[goes - 1] + ordered[goes]) / 2, 1.0)
    return order, thresholds, np.append(goes, len(order))


def _sums(values: np.ndarray) -> np.ndarray:
    """How many of the first k are true, for k = 0, 1, ..., n."""
    return np.concatenate([[0], np.cumsum(values)])


def _pareto(parts: Iterator[tuple[Point, ...]]) -> list[Point]:
    """The points at which no cheaper one answers as many images rightly, the cheapest first."""
    kept: list[Point] = []
    for point in sorted(itertools.chain.from_iterable(parts), key=lambda each: (each.cost, -each.right)):
        if not kept or point.right > kept[-1].right:
            kept.append(point)
    return kept


def standard_error(first: np.ndarray, second: np.ndarray) -> float:
    """How exactly images tell a difference in accuracy: one standard error of the mean of the paired differences.

    Args:
        first: `[N]`, bool, whether each image is answered rightly.
        second: `[N]`, bool, likewise.

    Returns:
        A fraction.
    """
    return float((first.astype(float) - second.astype(float)).std() / math.sqrt(len(first)))


def choose(
    points: Sequence[Point],
    answers: Answers,
    *,
    cost: float = math.inf,
    right: float = 0.0,
    size: Callable[[Point], float] = lambda point: 0.0,
) -> Point | None:
    """Choose the best point within a cost, or the cheapest that answers enough images rightly.

    Validation images are few: what is better by less than one standard error may be better by chance. So the simplest
    such sequence is chosen: the one of the fewest passes, then the smallest.

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
    by_sequence: dict[tuple[tuple[int, ...], bool], Point] = {}
    for point in fitting:
        known = by_sequence.setdefault((point.passes, point.average), point)
        if (point.right, -point.cost) > (known.right, -known.cost):
            by_sequence[point.passes, point.average] = point
    best = max(by_sequence.values(), key=lambda point: (point.right, -point.cost))
    among = answers.right(best)
    for point in sorted(by_sequence.values(), key=lambda each: (len(each.passes), size(each), -each.right)):
        if (best.right - point.right) / len(answers) <= standard_error(among, answers.right(point)):
            return point
    return best
