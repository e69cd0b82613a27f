import math

import pytest
import torch

from routekit.objective import terms


def test_consistency_is_eq_5_by_hand() -> None:
    # One sample, two copies at distance 1: each is 0.5 from the mean; (0.5 - 0.2)^2 = 0.09 for both.
    routes = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    assert terms.consistency(routes, margin=0.2).item() == pytest.approx(0.09)
    # A second sample whose copies agree halves the mean over samples.
    both = torch.cat([routes, torch.ones(1, 2, 2)])
    assert terms.consistency(both, margin=0.2).item() == pytest.approx(0.045)


def test_consistency_of_one_copy_is_zero() -> None:
    assert terms.consistency(torch.rand(4, 1, 3), margin=0.0).item() == 0


def test_diversity_is_eq_6_by_hand() -> None:
    # Mean routes (0.5, 0), (0.5, 0), (0.8, 0.4): distances 0, 0.5, 0.5; with d_d = 0.6: 0.36, 0.01, 0.01.
    # Over L(L - 1) = 6 ordered pairs: 2 * (0.36 + 0.01 + 0.01) / 6.
    routes = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.5, 0.0]], [[0.8, 0.4], [0.8, 0.4]]])
    assert terms.diversity(routes, margin=0.6).item() == pytest.approx(2 * 0.38 / 6, abs=1e-6)


def test_diversity_of_one_sample_is_zero() -> None:
    assert terms.diversity(torch.rand(1, 2, 3), margin=0.5).item() == 0


def test_cost_is_a_fraction_of_dense() -> None:
    assert terms.cost(torch.tensor([100.0, 50.0]), dense=100.0).item() == pytest.approx(0.75)


def test_regularization_is_eq_10_by_hand() -> None:
    # (1, 0) lies sqrt(0.5) from its own mean (0.5, 0.5); (1, 1) lies on it.
    gates = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert terms.regularization(gates).item() == pytest.approx(math.sqrt(0.5) / 2)


def test_distillation_by_hand() -> None:
    # At T = 2: teacher softmax([ln 9, 0] / 2) = (3/4, 1/4), student (1/2, 1/2); T^2 KL.
    teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    want = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert terms.distillation(student, teacher, 2.0).item() == pytest.approx(want, rel=1e-5)


def test_feature_distillation_by_hand() -> None:
    # Stage 1: squared distance 4 of squared norm 8, a half; stage 2: equal, 0. Scaling both changes nothing.
    own = [torch.tensor([[[[0.0, 2.0]]]]), torch.ones(1, 2, 1, 1)]
    teacher = [torch.tensor([[[[2.0, 2.0]]]]), torch.ones(1, 2, 1, 1)]
    assert terms.feature_distillation(own, teacher).item() == pytest.approx(0.25)
    assert terms.feature_distillation([7 * f for f in own], [7 * f for f in teacher]).item() == pytest.approx(0.25)


def test_classification_by_hand() -> None:
    loss = terms.classification(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(0.75), rel=1e-5)


def _random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*shape, dtype=torch.float64, generator=generator, requires_grad=True)


TEACHER = _random(4, 2, 5).detach().flip(0)


@pytest.mark.parametrize(
    "term",
    [
        lambda r: terms.consistency(r, 0.05),
        lambda r: terms.diversity(r, 0.9),
        lambda r: terms.regularization(r.flatten(0, 1)),
        lambda r: terms.cost((r.flatten(0, 1) * torch.arange(1, 6)).sum(1), 15.0),
        lambda r: terms.distillation(r.flatten(0, 1), TEACHER.flatten(0, 1), 4.0),
        lambda r: terms.feature_distillation([r, r[:2].square()], [TEACHER, TEACHER[2:]]),
        lambda r: terms.classification(r.flatten(0, 1), torch.arange(8) % 5),
    ],
)
def test_gradients_in_float64(term: object) -> None:
    assert torch.autograd.gradcheck(term, (_random(4, 2, 5),))


@pytest.mark.parametrize("term", [lambda r: terms.consistency(r, 0.2), lambda r: terms.diversity(r, 0.5)])
def test_equal_routes_have_a_finite_gradient(term) -> None:  # type: ignore[no-untyped-def]
    # The norm has no derivative at 0, where every run starts: all routes are open.
    routes = torch.ones(3, 2, 4, requires_grad=True)
    term(routes).backward()
    assert torch.isfinite(routes.grad).all()


def test_diversity_pushes_routes_apart_and_consistency_pulls_them_together() -> None:
    routes = torch.tensor([[[0.5, 0.5]], [[0.6, 0.5]]], requires_grad=True)
    terms.diversity(routes, 0.5).backward()
    assert routes.grad[0, 0, 0] > 0 > routes.grad[1, 0, 0]  # descending moves the left one left
    copies = torch.tensor([[[0.1, 0.5], [0.9, 0.5]]], requires_grad=True)
    terms.consistency(copies, 0.2).backward()
    assert copies.grad[0, 0, 0] < 0 < copies.grad[0, 1, 0]
