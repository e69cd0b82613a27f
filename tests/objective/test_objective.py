"""The settings by which answers are taught: by hand, and by the gradient of each answer."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.network.execution import masked
from routekit.objective import terms
from routekit.objective.objective import Losses, ObjectiveWeights, objective
from routekit.objective.policy import PolicyConfig
from routekit.routing.decision import Layout, RouteTrace
from tests.toy import toy_exits, toy_noise, toy_view

COSTS = CostTable.measure(convert(toy_view()))
LABELS = torch.tensor([0, 1, 2, 0])


def answers(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 4, 3, dtype=torch.float64, generator=generator)
    return [each.requires_grad_() for each in drawn]


def losses_of(leaves: list[Tensor], weights: ObjectiveWeights, teacher: Tensor | None = None) -> Losses:
    trace = RouteTrace(leaves[-1], (), Layout(), tuple(leaves))
    taught = None if teacher is None else RouteTrace(teacher, (), Layout())
    return objective(trace, LABELS, COSTS, weights, cost_weight=0.0, teacher=taught, routing=False)


def test_decoupled_distillation_takes_the_place_of_the_classical_one() -> None:
    leaves, (teacher,) = answers(2), answers(1, seed=1)
    shares = {"distillation": 0.25, "distillation_temperature": 4.0}
    weights = ObjectiveWeights(**shares, decoupled=8.0)
    found = losses_of(leaves, weights, teacher.detach())
    want = [terms.decoupled_distillation(leaf, teacher, LABELS, 4.0, 8.0).mean() for leaf in leaves]
    torch.testing.assert_close(found.by_name["distillation"], want[-1])
    own = [terms.classification(leaf, LABELS).mean() for leaf in leaves]
    torch.testing.assert_close(found.total, sum(0.75 * a + 0.25 * b for a, b in zip(own, want, strict=True)))
    classical = losses_of(leaves, ObjectiveWeights(**shares), teacher.detach())
    torch.testing.assert_close(classical.by_name["distillation"], terms.distillation(leaves[1], teacher, 4.0).mean())
    assert not torch.allclose(found.total, classical.total)


def test_later_answers_learn_from_what_earlier_ones_are_unsure_of() -> None:
    leaves = answers(3)
    slopes = torch.autograd.grad(losses_of(leaves, ObjectiveWeights(reached=0.8)).total, leaves)
    plain = torch.autograd.grad(losses_of(leaves, ObjectiveWeights()).total, leaves)
    # The first answer learns from all images alike, and not from being a weight.
    assert torch.equal(slopes[0], plain[0])
    for place in (1, 2):
        doubt = 1 - leaves[place - 1].detach().softmax(dim=1).max(dim=1).values
        weight = 0.2 + 0.8 * doubt / doubt.mean()
        assert float(weight.mean()) == pytest.approx(1)
        assert float(weight.std()) > 0.1
        torch.testing.assert_close(slopes[place], weight.unsqueeze(1) * plain[place])


def test_without_it_nothing_changes_to_the_last_bit() -> None:
    leaves = answers(3)
    total = losses_of(leaves, ObjectiveWeights(reached=0.0)).total
    assert torch.equal(total, torch.stack([terms.classification(leaf, LABELS) for leaf in leaves]).mean(dim=1).sum())
    single = answers(1)
    assert torch.equal(
        losses_of(single, ObjectiveWeights(reached=1.0)).total, losses_of(single, ObjectiveWeights()).total
    )


def test_what_a_policy_weighs_is_not_weighed_twice() -> None:
    network = toy_exits()
    trace = network.train()(toy_noise(6), execution=masked)
    labels, costs, found = torch.arange(6) % 3, CostTable.measure(network), []
    for reached in (0.0, 1.0):
        weights = ObjectiveWeights(reached=reached, policy=PolicyConfig(heads=0.5))
        choice = weights.policy.choice(1.0)
        found.append(objective(trace, labels, costs, weights, cost_weight=0.0, routing=False, choice=choice))
    (plain, by_reach), last = found, trace.leaves[-1]
    assert plain.gains is not None
    assert torch.equal(plain.gains, by_reach.gains)
    slopes = [torch.autograd.grad(each.by_name["inference"], last, retain_graph=True)[0] for each in found]
    assert torch.equal(*slopes)
    slopes = [torch.autograd.grad(each.by_name["heads"], last, retain_graph=True)[0] for each in found]
    weight = terms.reach_weights(trace.leaves[-2], 1.0)
    torch.testing.assert_close(slopes[1], weight.unsqueeze(1) * slopes[0])


@pytest.mark.parametrize("wrong", [{"reached": 1.1}, {"reached": -0.1}, {"decoupled": -1.0}])
def test_settings_out_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ObjectiveWeights(**wrong)


def test_terms_over_copies_need_copies() -> None:
    for name in ("consistency", "regularization"):
        weights = ObjectiveWeights(**{name: 0.5})  # type: ignore[arg-type]
        weights.check(2)
        with pytest.raises(
            InputError, match=rf"^objective\.{name} compares copies of an image: training.copies=2, or more$"
        ):
            weights.check(1)
    ObjectiveWeights(regularization=0.5, regularization_over="units").check(1)
    with pytest.raises(InputError, match=r"objective\.consistency"):
        ObjectiveWeights(consistency=0.5, regularization=0.5, regularization_over="units").check(1)
    ObjectiveWeights().check(1)
