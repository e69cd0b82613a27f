"""Which sequence of passes meets an aim: against exhaustive enumeration."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routekit.evaluation.sequences import Answers, Point, choose, frontier, standard_error


def ladder(seed: int, images: int = 12, passes: int = 3, classes: int = 4) -> tuple[Answers, list[float]]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(passes, images, classes, generator=generator)
    labels = torch.randint(classes, (images,), generator=generator)
    return Answers(logits, labels), [1.0 + 2 * place for place in range(passes)]


def linear(costs: list[float]):
    return [lambda rate, each=each: each * np.asarray(rate) for each in costs]


def run(answers: Answers, costs: list[float], point: Point) -> tuple[float, int, float]:
    """Image by image, as a program does it: the mean cost, how many are right, how sure it is of the right class."""
    cost, right, sure = 0.0, 0, 0.0
    for image in range(len(answers)):
        probabilities = []
        for place, each in enumerate(point.passes):
            cost += costs[each]
            probabilities.append(answers.logits[each, image].softmax(dim=0))
            answer = torch.stack(probabilities).mean(dim=0) if point.average else probabilities[-1]
            if place == len(point.thresholds) or float(answer.max()) > point.thresholds[place]:
                break
        right += int(answer.argmax() == answers.labels[image])
        sure += float(answer[answers.labels[image]])
    return cost / len(answers), right, sure / len(answers)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_point_does_what_it_says(seed: int) -> None:
    answers, costs = ladder(seed)
    for point in frontier(answers, linear(costs)):
        cost, right, sure = run(answers, costs, point)
        assert (pytest.approx(point.cost), point.right) == (cost, right)
        assert answers.right(point).sum() == right
        assert answers.sureness(point) == pytest.approx(sure, abs=1e-6)
        assert answers.rates(point) == pytest.approx(point.rates)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_no_pair_of_thresholds_is_better_than_the_frontier(seed: int) -> None:
    answers, costs = ladder(seed, images=9)
    points = frontier(answers, linear(costs))
    grid = sorted({float(x) for x in np.concatenate([answers.of((p,))[0] for p in range(3)])})
    for thresholds in itertools.product([*grid, 1.0], repeat=2):
        cost, right, _ = run(answers, costs, Point((0, 1, 2), thresholds, False, 0, 0, ()))
        assert any(
            point.cost <= cost + 1e-9 and point.right >= right
            for point in points
            if point.passes == (0, 1, 2) or len(point.passes) < 3
        )


def test_what_is_better_by_chance_is_not_chosen_over_what_is_simpler() -> None:
    labels = torch.zeros(400, dtype=torch.int64)
    logits = torch.zeros(2, 400, 2)
    logits[:, :, 0] = 3.0
    logits[0, :40, 1] = 6.0  # errs on 40 images, as sure of them as of others
    logits[1] *= 0.9
    logits[1, 100:139, 1] = 5.4  # errs on 39 other images
    answers = Answers(logits, labels)
    found = choose(frontier(answers, linear([1.0, 2.0])), answers, cost=5.0, size=lambda point: sum(point.passes))
    assert found is not None
    assert (found.passes, found.right) == ((0,), 360)


def test_of_what_is_equally_simple_the_surest_is_chosen() -> None:
    """Both answer nearly as many rightly, the second one by far surer. Images on which both are right tell that."""
    logits = torch.zeros(2, 400, 2)
    logits[0, :, 0], logits[1, :, 0] = 1.0, 4.0
    logits[0, :38, 1], logits[1, 40:80, 1] = 2.0, 5.0
    answers = Answers(logits, torch.zeros(400, dtype=torch.int64))
    found = choose(frontier(answers, linear([1.0, 1.0])), answers, cost=1.0)
    assert found is not None
    assert (found.passes, found.right) == ((1,), 360)


def test_a_second_pass_is_chosen_where_it_pays() -> None:
    logits = torch.zeros(2, 400, 2)
    logits[:, :, 0] = 3.0
    logits[0, :40, 1] = 4.0  # errs on 40 images, and is less sure of them; the second pass errs on none
    answers = Answers(logits, torch.zeros(400, dtype=torch.int64))
    points = frontier(answers, linear([1.0, 2.0]))
    alone, both = choose(points, answers, cost=5.0), choose(points, answers, cost=1.5)
    assert alone is not None
    assert both is not None
    assert (alone.passes, alone.right) == ((1,), 400)  # it may cost that much, and is simpler
    assert (both.passes, both.right, both.cost) == ((0, 1), 400, pytest.approx(1.2))


def test_the_cheapest_that_answers_enough() -> None:
    answers, costs = ladder(3, images=40)
    points = frontier(answers, linear(costs))
    found = choose(points, answers, right=12)
    assert found.right >= 12
    assert all(point.cost >= found.cost for point in points if point.right >= 12)
    assert choose(points, answers, right=41) is None


def test_one_standard_error_of_a_paired_difference() -> None:
    first, second = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool)
    # differences 0, 1, 0, 0: a deviation of sqrt(3)/4
    assert standard_error(first, second) == pytest.approx(np.sqrt(3) / 4 / 2)


def test_a_form_comes_once_in_a_sequence_and_the_cheaper_pass_first() -> None:
    answers, _ = ladder(1)
    points = frontier(answers, linear([3.0, 1.0, 2.0]), forms=[0, 1, 0])
    assert {point.passes for point in points} == {(0,), (1,), (2,), (1, 0), (1, 2)}


def test_thresholds_are_those_of_float32() -> None:
    """Half-way between two neighbours is one of them: not the upper one, which the network would let go on, too."""
    below = np.nextafter(np.float32(1), np.float32(0))
    certainties = np.array([0.5, below, 1.0], dtype=np.float32).astype(float)
    logits = torch.zeros(2, 3, 2)
    answers = Answers(logits, torch.zeros(3, dtype=torch.int64))
    answers._known[0,] = (certainties, np.array([False, False, True]))
    answers._known[1,] = (np.ones(3), np.array([True, True, False]))
    best = max(frontier(answers, linear([1.0, 2.0])), key=lambda point: point.right)
    assert (best.passes, best.right) == ((0, 1), 3)
    (threshold,) = best.thresholds
    assert threshold == np.float32(threshold)
    goes = torch.tensor(certainties, dtype=torch.float32) <= torch.tensor(threshold, dtype=torch.float32)
    assert goes.tolist() == [True, True, False]
