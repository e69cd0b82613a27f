import math

import pytest
import torch

from routekit.objective import terms
from routekit.routing.decision import Decision


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
    # Two samples of two copies. Over copies, the mean routes are (1, 0.5) and (0.3, 0.4): distances 0.5, 0.5, 0.5, 0.5
    # of the first and second sample. Over units, (1, 0) lies sqrt(0.5) from (0.5, 0.5), (1, 1) and (0, 0) lie on it,
    # and (0.6, 0.8) lies 0.1 sqrt(2) from (0.7, 0.7).
    routes = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.6, 0.8], [0.0, 0.0]]])
    assert terms.regularization(routes).item() == pytest.approx(0.5)
    assert terms.regularization(routes, "units").item() == pytest.approx((math.sqrt(0.5) + 0.1 * math.sqrt(2)) / 4)
    # Copies that take one route have nothing to be pulled to, whatever their gates are.
    assert terms.regularization(routes[:, :1].expand(-1, 3, -1)).item() == 0


def test_distillation_by_hand() -> None:
    # At T = 2: teacher softmax([ln 9, 0] / 2) = (3/4, 1/4), student (1/2, 1/2); T^2 KL.
    teacher, student = torch.tensor([[math.log(9.0), 0.0]]), torch.zeros(1, 2)
    want = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert terms.distillation(student, teacher, 2.0).item() == pytest.approx(want, rel=1e-5)


def test_decoupled_distillation_by_hand() -> None:
    # At T = 2 and label 0: teacher (1/2, 3/8, 1/8), student (1/4, 1/4, 1/2). Label against others: (1/2, 1/2) and
    # (1/4, 3/4). Given the others: (3/4, 1/4) and (1/3, 2/3).
    teacher = 2 * torch.tensor([[1 / 2, 3 / 8, 1 / 8]]).log() + 5
    student = 2 * torch.tensor([[1 / 4, 1 / 4, 1 / 2]]).log() - 7
    tckd = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    nckd = 0.75 * math.log(9 / 4) + 0.25 * math.log(3 / 8)
    for order, label in (([0, 1, 2], 0), ([1, 2, 0], 2), ([2, 0, 1], 1)):
        for beta in (0.0, 1.0, 8.0):
            found = terms.decoupled_distillation(student[:, order], teacher[:, order], torch.tensor([label]), 2.0, beta)
            assert found.shape == (1,)
            assert found.item() == pytest.approx(4 * (tckd + beta * nckd), rel=1e-5)


def test_distillation_is_the_coupled_form_of_the_decoupled_one() -> None:
    """Eq. 5 of Zhao et al.: KD = TCKD + (1 - p_t) NCKD, with p_t what the teacher gives the label at T."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 16, 7, dtype=torch.float64, generator=generator) * 3
    labels = torch.arange(16) % 7
    tckd = terms.decoupled_distillation(student, teacher, labels, 4.0, 0.0)
    nckd = terms.decoupled_distillation(student, teacher, labels, 4.0, 1.0) - tckd
    others = 1 - (teacher / 4).softmax(dim=1)[torch.arange(16), labels]
    whole = terms.distillation(student, teacher, 4.0)
    torch.testing.assert_close(tckd + others * nckd, whole, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(tckd + nckd, whole)


def test_decoupled_distillation_is_finite_where_probabilities_are_not() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0], [-200.0, 0.0, 200.0]], requires_grad=True)
    teacher = torch.tensor([[300.0, -300.0, 0.0], [300.0, -300.0, 0.0]])
    loss = terms.decoupled_distillation(logits, teacher, torch.tensor([0, 0]), 1.0, 8.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_reach_weights_by_hand() -> None:
    # Doubts 0.1 and 0.3, of mean 0.2: half of the weight goes by them.
    logits = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64).log().requires_grad_()
    weights = terms.reach_weights(logits, 0.5)
    assert weights.tolist() == pytest.approx([0.75, 1.25])
    assert not weights.requires_grad
    assert terms.reach_weights(logits, 1.0).tolist() == pytest.approx([0.5, 1.5])
    # Where all answers are sure, nobody is left out.
    assert terms.reach_weights(torch.tensor([[300.0, 0.0], [0.0, 300.0]]), 1.0).tolist() == [1.0, 1.0]


def test_feature_distillation_by_hand() -> None:
    # Stage 1: squared distance 4 of squared norm 8, a half; stage 2: equal, 0. Scaling both changes nothing.
    own = [torch.tensor([[[[0.0, 2.0]]]]), torch.ones(1, 2, 1, 1)]
    teacher = [torch.tensor([[[[2.0, 2.0]]]]), torch.ones(1, 2, 1, 1)]
    assert terms.feature_distillation(own, teacher).item() == pytest.approx(0.25)
    for scale in (7, 0.001):
        scaled = [[scale * f for f in features] for features in (own, teacher)]
        assert terms.feature_distillation(*scaled).item() == pytest.approx(0.25)
    # In bfloat16, 1 + 0.001 would be 1.
    halves = [[f.bfloat16() for f in features] for features in (own, teacher)]
    assert terms.feature_distillation(*halves).dtype == torch.float32


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
        terms.regularization,
        lambda r: terms.regularization(r, "units"),
        lambda r: terms.cost((r.flatten(0, 1) * torch.arange(1, 6)).sum(1), 15.0),
        lambda r: terms.distillation(r.flatten(0, 1), TEACHER.flatten(0, 1), 4.0),
        lambda r: terms.decoupled_distillation(r.flatten(0, 1), TEACHER.flatten(0, 1), torch.arange(8) % 5, 4.0, 8.0),
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


def test_ponder_is_the_number_of_units_and_the_remainder_by_hand() -> None:
    """Two stages, of three units and of two; the scores of each image so far stand in the margins."""

    def decided(*left: float, positions: list[list[float]] | None = None) -> Decision:
        logits = torch.tensor([[each, 0.0] for each in left])
        choice = logits.argmax(dim=1)
        where = None if positions is None else torch.tensor(positions).view(-1, 2, 2)
        return Decision(logits, torch.nn.functional.one_hot(choice, 2).float(), choice, where)

    # Image 0: scores of 0.3, then 0.5 more; then it halts at once. Image 1 halts at once; then a score of 0.5.
    decisions = [decided(0.69, -0.01), decided(0.19, -0.01), decided(-0.01, 0.49)]
    stages = [range(2), range(2, 3)]
    found = terms.ponder(decisions, stages, 0.01)
    # Image 0: N = 3, R = 0.2, and N = 1, R = 1. Image 1: N = 1, R = 1, and N = 2, R = 0.5. Of five units.
    torch.testing.assert_close(found, torch.tensor([(3 + 0.2 + 1 + 1) / 5, (1 + 1 + 2 + 0.5) / 5]))
    # Of four positions, one goes on for two units more, one for one; where the image stops, no position counts.
    places = [
        decided(0.69, positions=[[0.69, 0.39, -0.01, -0.01]]),
        decided(0.19, positions=[[0.19, -0.1, -0.01, -0.01]]),
    ]
    found = terms.ponder(places, [range(2)], 0.01)
    want = ((3 + 0.2) + (2 + 0.4) + (1 + 1) + (1 + 1)) / 4 / 3
    torch.testing.assert_close(found, torch.tensor([want]))
    stopped = [decided(-1.0, positions=[[0.5, 0.5, 0.5, 0.5]]), decided(-1.0, positions=[[0.5, 0.5, 0.5, 0.5]])]
    torch.testing.assert_close(terms.ponder(stopped, [range(2)], 0.01), torch.tensor([2 / 3]))
