"""What passes cost by the share of images that get there."""

import math

import numpy as np
import pytest

from routekit.cost.passes import binomials, counts_of, milliseconds, multiply_adds


def test_one_image_costs_as_often_as_it_gets_there() -> None:
    assert milliseconds({1: 2.0}, 1)(np.array([0.0, 0.25, 1.0])).tolist() == [0.0, 0.5, 2.0]
    assert multiply_adds(8.0)(np.array([0.0, 0.25, 1.0])).tolist() == [0.0, 2.0, 8.0]


def test_of_a_batch_some_get_there() -> None:
    cost = milliseconds({1: 2.0, 2: 3.0}, 2)
    # half: nobody 1/4, one 1/2 at 2 ms, both 1/4 at 3 ms, for two images
    assert cost(np.array([0.5])).tolist() == [(0.5 * 2.0 + 0.25 * 3.0) / 2]
    assert cost(np.array([1.0])).tolist() == [1.5]


def test_between_measured_numbers_lies_a_line() -> None:
    cost = milliseconds({1: 1.0, 8: 2.0, 64: 10.0}, 64)
    drawn = np.random.default_rng(0).binomial(64, 0.15, 200_000)
    expected = np.interp(drawn, [1, 8, 64], [1.0, 2.0, 10.0]) * (drawn > 0)
    assert cost(np.array([0.15]))[0] == pytest.approx(expected.mean() / 64, rel=1e-3)
    assert cost(np.array([1.0]))[0] == pytest.approx(10 / 64)
    assert binomials(4).tolist() == [1, 4, 6, 4, 1]


def test_small_shares_are_computed_finely() -> None:
    share = 0.0005
    taken = np.interp(np.arange(65), [1, 8, 64], [1.0, 2.0, 10.0])
    chances = [math.comb(64, k) * share**k * (1 - share) ** (64 - k) for k in range(65)]
    expected = sum(chance * ms for chance, ms in zip(chances[1:], taken[1:], strict=True)) / 64
    assert milliseconds({1: 1.0, 8: 2.0, 64: 10.0}, 64)(np.array([share]))[0] == pytest.approx(expected, rel=1e-9)


def test_which_numbers_are_timed() -> None:
    assert [counts_of(batch) for batch in (1, 2, 6, 64)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16, 32, 64]]
