import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routekit.errors import InputError
from routekit.routing.gate import EXPLORED, WORTH_LIMIT, gates, sampling, soft, straight_through


def test_soft_is_eq_3_by_hand() -> None:
    # softmax([ln 3, 0]) = [3/4, 1/4]; softmax(2 * [3/4, 1/4])[0] = 1 / (1 + e^-1)
    weights = soft(torch.tensor([[math.log(3.0), 0.0]]), temperature=0.5)
    assert weights[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)


def test_soft_never_leaves_the_open_interval_that_beta_sets() -> None:
    weights = soft(torch.tensor([[1e4, -1e4]]), temperature=0.2)
    assert weights[0, 0].item() == pytest.approx(1 / (1 + math.exp(-5)), abs=1e-6)


@pytest.mark.parametrize("name", ["soft", "straight-through", "bernoulli"])
def test_a_gate_passes_the_gradient_check(name: str) -> None:
    logits = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    if name == "soft":
        assert torch.autograd.gradcheck(lambda x: soft(x, temperature=0.3), logits)
        return
    # Straight-through gates are steps: their gradient is by definition that of the softmax at the temperature.
    weights = gates[name](logits, temperature=0.5, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad(weights[:, 0].sum(), logits)
    (want,) = torch.autograd.grad(torch.softmax(logits / 0.5, dim=1)[:, 0].sum(), logits)
    torch.testing.assert_close(got, want)


def test_the_benefit_gate_teaches_half_the_slope_where_a_unit_was_skipped() -> None:
    # Image 0 skips (it predicts 0.1 under the price 0.3), image 1 runs. The loss falls by 0.8 a unit of image 0's gate:
    # twice that for the batch of two, half of it is worth 0.8. Least squares: the gradient is 0.1 - 0.8.
    logits = torch.tensor([[-0.2, 0.0], [1.7, 0.0]], requires_grad=True)
    generator, bias = torch.Generator().manual_seed(2), torch.tensor([-0.3])
    weights = gates["benefit"](logits, temperature=1.0, generator=generator, bias=bias)
    assert weights.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    (got,) = torch.autograd.grad((weights[:, 0] * torch.tensor([-0.8, -3.0])).sum(), logits)
    torch.testing.assert_close(got, torch.tensor([[-0.7, 0.0], [0.0, 0.0]]))


def test_the_benefit_gate_compares_dearer_sinks_with_the_one_that_was_taken() -> None:
    # Image 0 takes the second of three sinks, image 1 the default; predictions are the logits without the bias.
    predicted, bias = torch.tensor([[0.5, 0.2], [0.1, -0.3]]), torch.tensor([-1.0, 0.1])
    logits = torch.cat([predicted + bias, torch.zeros(2, 1)], dim=1).requires_grad_()
    generator = torch.Generator().manual_seed(2)
    weights = gates["benefit"](logits, temperature=1.0, generator=generator, bias=bias)
    assert weights.tolist() == [[0, 1, 0], [0, 0, 1]]
    slopes = torch.tensor([[-0.5, -0.1, 0.0], [-0.3, -0.2, 0.0]])
    (got,) = torch.autograd.grad((weights * slopes).sum(), logits)
    # Image 0: the full branch is worth 0.5 - 0.1 = 0.4 more than the second, 0.3 was predicted. Image 1: 0.3 and 0.2,
    # of which 0.1 and -0.3 were predicted. The first sink was dearer for both images, the second for one of them.
    torch.testing.assert_close(got, torch.tensor([[-0.05, 0.05, 0.0], [-0.1, -0.5, 0.0]]))


def test_a_prediction_that_is_far_off_does_not_run_away() -> None:
    # One sample, and a step of twice of what least squares can bear: each step would double the error.
    predicted = torch.tensor([[-20.0]])
    for _ in range(40):
        logits = torch.cat([predicted, torch.zeros(1, 1)], dim=1).requires_grad_()
        weights = gates["benefit"](logits, temperature=1.0, generator=torch.Generator().manual_seed(2))
        (slope,) = torch.autograd.grad(-1.0 * weights[:, 0].sum(), logits)
        assert slope.abs().max() <= WORTH_LIMIT
        predicted = predicted - 3.0 * slope[:, :1]
    assert predicted.abs().max() < 20


def test_the_benefit_gate_explores_a_few_of_the_units_that_would_run() -> None:
    logits = torch.tensor([[1.0, 0.0]]).expand(4000, 2)
    weights = gates["benefit"](logits, temperature=1.0, generator=torch.Generator().manual_seed(0))
    assert weights[:, 1].mean().item() == pytest.approx(EXPLORED, abs=0.015)


def test_benefits_of_a_parabola_are_learnt_exactly() -> None:
    # Each unit lowers a quadratic loss by its own share, to its minimum at 1: the slope at 0 is twice the benefit.
    worth = torch.tensor([0.2, 1.0, 3.0])
    predicted = torch.zeros(3, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD([predicted], lr=0.1)
    for _ in range(200):
        loss = torch.zeros(())
        for unit in range(3):
            price = torch.tensor([0.7])
            logits = torch.stack([(predicted[unit] - price).expand(64), torch.zeros(64)], dim=1)
            ran = gates["benefit"](logits, temperature=1.0, generator=generator, bias=-price)[:, 0]
            loss = loss + (worth[unit] * (1 - ran).square()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(predicted.detach(), worth, rtol=0.02, atol=0.02)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=16))
def test_every_gate_gives_weights_that_sum_to_one(scores: list[float]) -> None:
    logits = torch.tensor([[score, 0.0] for score in scores], dtype=torch.float64)
    for name in gates:
        weights = gates[name](logits, temperature=0.7, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(scores), dtype=torch.float64))
        if name not in ("soft", "softmax"):
            assert ((weights - weights.round()).abs() < 1e-12).all()


def test_hard_takes_the_largest_logit_and_runs_on_a_tie() -> None:
    weights = gates["hard"](torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]]), temperature=1.0, generator=None)
    assert weights.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_gumbel_and_bernoulli_sample_with_the_softmax_probability() -> None:
    logits = torch.tensor([[1.0, 0.0]]).expand(20_000, 2)
    want = 1 / (1 + math.exp(-1))
    for name in ("gumbel", "bernoulli"):
        weights = gates[name](logits, temperature=1.0, generator=torch.Generator().manual_seed(0))
        # Four standard deviations of the mean of 20,000 draws.
        assert weights[:, 0].mean().item() == pytest.approx(want, abs=4 * math.sqrt(want * (1 - want) / 20_000))


def test_sampling_is_the_generators_alone() -> None:
    logits = torch.zeros(64, 2)
    for name in ("gumbel", "bernoulli"):
        first, again, other = (
            gates[name](logits, temperature=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_straight_through_is_one_hot_forward() -> None:
    assert straight_through(torch.tensor([[0.3, 0.2]]), temperature=1.0).tolist() == [[1.0, 0.0]]


def test_an_unknown_gate_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean gumbel"):
        gates["gumbell"]


def test_inference_samples_by_what_training_relaxed() -> None:
    """Of Eq. 3 with beta = 5: two successive softmaxes. Of other gates: the softmax at the temperature."""
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(20000, 2)
    inner = 1 / (1 + math.exp(-1))
    wanted = {"soft": 1 / (1 + math.exp(-5 * (2 * inner - 1))), "benefit": 1 / (1 + math.exp(-5))}
    for name, want in wanted.items():
        weights = sampling(name, 0.2)(logits, temperature=9.0, generator=torch.Generator().manual_seed(0), bias=None)
        assert {*weights.flatten().tolist()} == {0.0, 1.0}
        assert float(weights[:, 0].mean()) == pytest.approx(want, abs=0.01)
        again = sampling(name, 0.2)(logits, generator=torch.Generator().manual_seed(0))
        assert torch.equal(weights, again)  # by the generator alone
    warmer = sampling("soft", 0.5)(logits, generator=torch.Generator().manual_seed(0))
    assert float(warmer[:, 0].mean()) == pytest.approx(1 / (1 + math.exp(-2 * (2 * inner - 1))), abs=0.01)
