"""Saying "I don't know" where asking on helps."""

from dataclasses import replace

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import ImageSet
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.fit_deferral import fit, fit_deferral, share_for
from routekit.junctions.convert import convert, join
from routekit.network.network import RoutedNetwork
from routekit.routing.certainty import LearnedCertainty, measures
from tests.toy import toy_images, toy_view


def answers(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Probabilities of four classes with the two largest given."""
    rest = (1 - first - second) / 2
    return torch.stack([first, second, rest, rest], dim=1)


def test_measures_by_hand() -> None:
    certain, even = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.full((1, 4), 0.25)
    torch.testing.assert_close(measures(certain), torch.tensor([[1.0, 1.0, 1.0]]))
    torch.testing.assert_close(measures(even), torch.tensor([[0.25, 0.0, 0.0]]))


def test_it_asks_where_that_helps_even_if_others_are_less_confident() -> None:
    """A network that is lost between two classes can be helped; where three are alike, nobody knows better."""
    generator = torch.Generator().manual_seed(0)
    split = answers(0.5 + 0.02 * torch.rand(300, generator=generator), torch.full((300,), 0.45))
    lost = answers(0.4 + 0.02 * torch.rand(300, generator=generator), torch.full((300,), 0.2))
    sure = answers(0.95 + 0.02 * torch.rand(400, generator=generator), torch.full((400,), 0.02))
    probabilities = torch.cat([split, lost, sure])
    wrong = torch.cat([torch.arange(600) % 2 == 0, torch.arange(400) % 50 == 0])
    after = wrong.clone()
    after[:300] = False  # whoever is asked knows which of two it is
    known = LearnedCertainty()
    fit(known, probabilities, wrong, after, share=0.3)
    with torch.no_grad():
        certain = known(probabilities)
    assert certain[:300].max() < certain[300:].min()
    # The mere confidence would have asked about those who are lost first.
    assert probabilities[300:600].amax() < probabilities[:300, 0].min()
    assert float((certain < 0.5).double().mean()) == pytest.approx(0.3, abs=0.05)


def test_the_share_that_a_budget_leaves_room_for() -> None:
    assert share_for(torch.tensor([10.0, 100.0], dtype=torch.float64), 60.0) == pytest.approx(0.5, abs=1e-4)
    # 10 + 20 s + 40 s^2 = 30 at s = 0.5.
    assert share_for(torch.tensor([10.0, 20.0, 40.0], dtype=torch.float64), 30.0) == pytest.approx(0.5, abs=1e-4)


def classifier(images: ImageSet, noise: float) -> RoutedNetwork:
    """A toy that is neither sure of all images nor takes all for one class; `noise` makes it another one."""
    view = toy_view()
    x = normalize(images.images, view.spec.mean, view.spec.std)
    weight, bias = view.model.fc.weight, view.model.fc.bias
    with torch.no_grad():
        weight /= view.model(x).std(dim=0).unsqueeze(1)
        weight += noise * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        bias -= view.model(x).mean(dim=0)
    return convert(view)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_a_cascade_learns_to_defer_as_many_images_as_the_budget_has_room_for(share: float) -> None:
    images = toy_images(300)
    small, whole = classifier(images, 0.6), classifier(images, 0.0)
    spec = whole.spec
    right = whole.predict(normalize(images.images, spec.mean, spec.std)).argmax(dim=1)
    images = replace(images, labels=right)  # the second network knows better, always
    network = join([small, whole], rule="idk")
    costs = CostTable.measure(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit_deferral(network, images, costs, float(costs.base[0] + share * costs.base[1]))
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed
    assert all("certainty" in name for name in changed)
    found = evaluate(network, images, costs, everywhere=True)
    assert found.leaves is not None
    certainty = network.deciders[0].certainty
    with torch.no_grad():
        defers = certainty(found.leaves[:, 0].softmax(dim=1)) < 0.5
    assert float(defers.double().mean()) == pytest.approx(share, abs=0.02)
    wrong = found.leaves[:, 0].argmax(dim=1) != right
    assert float(wrong[defers].double().mean()) > 1.5 * float(wrong[~defers].double().mean())
