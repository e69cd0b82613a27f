"""The threshold of a cascade meets a mean cost on the images that it is set on."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from routekit.cost.cascade import CascadeCost
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.threshold import Doubts, ask_all
from routekit.network.cascade import Cascade
from tests.toy import toy_images
from tests.toy import toy_routed as routed


def test_two_networks_by_hand() -> None:
    # The first costs 1, the second 4; of four images, those of a certainty of at most the threshold go on.
    doubts = Doubts(torch.tensor([[0.9], [0.5], [0.7], [0.3]]), torch.tensor([[1.0, 4.0]] * 4))
    assert [doubts.cost(t) for t in (0.2, 0.3, 0.6, 0.7, 1.0)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert doubts.threshold(3.0) == pytest.approx(0.6)  # between the certainties of two images
    assert doubts.threshold(3.4) == pytest.approx(0.6)  # the nearest cost there is
    assert doubts.threshold(3.6) == pytest.approx(0.8)
    assert doubts.threshold(1.0) == -1.0
    assert doubts.threshold(5.0) == pytest.approx(0.95)
    with pytest.raises(InputError, match=r"can cost from 1\.00e0 .* to 5\.00e0"):
        doubts.threshold(0.5)


def test_three_networks_by_hand() -> None:
    # Who is sure at the second network does not pay for the third, whatever the third would say.
    doubts = Doubts(torch.tensor([[0.2, 0.9], [0.2, 0.2], [0.9, 0.2]]), torch.tensor([[1.0, 10.0, 100.0]] * 3))
    assert doubts.cost(0.5) == pytest.approx((3 * 1 + 2 * 10 + 100) / 3)


@given(
    rows=st.lists(
        st.tuples(*[st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0])] * 2, *[st.integers(1, 9)] * 3), min_size=1, max_size=8
    ),
    share=st.floats(0, 1),
)
@example(rows=[(0.1, 0.1, 3, 1, 7), (0.1, 0.1, 4, 5, 9), (0.1, 0.1, 7, 1, 3)], share=1.0)  # is rounded beyond the most
def test_no_other_threshold_is_nearer(rows: list[tuple[float, ...]], share: float) -> None:
    table = torch.tensor(rows, dtype=torch.float64)
    doubts = Doubts(table[:, :2].float(), table[:, 2:])
    least, most = doubts.cost(-1.0), doubts.cost(1.0)
    target = least + share * (most - least)
    off = abs(doubts.cost(doubts.threshold(target)) - target)
    assert off <= min(abs(doubts.cost(t) - target) for t in (-1.0, 0.1, 0.25, 0.5, 0.75, 1.0)) + 1e-9


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_what_was_set_is_what_is_measured(rule: str) -> None:
    cascade = Cascade([routed(seed=seed) for seed in (0, 1)], rule=rule)
    costs, data = CascadeCost.measure(cascade), toy_images(96)
    doubts = ask_all(cascade, data, costs).doubts(cascade)
    target = 0.5 * (doubts.cost(-1.0) + doubts.cost(1.0))
    threshold = doubts.threshold(target)
    cascade.threshold.fill_(threshold)
    measured = evaluate(cascade, data, costs)
    assert measured.cost == pytest.approx(doubts.cost(threshold))
    assert measured.cost == pytest.approx(target, rel=0.02)
