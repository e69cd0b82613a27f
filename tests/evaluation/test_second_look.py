"""Whether a network looks again is what validation images say, at the same cost."""

from dataclasses import replace

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import ImageSet
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.second_look import SecondLook, try_again
from routekit.junctions.again import Again, look_again, look_once
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.tree import Tree
from routekit.network.network import RoutedNetwork
from tests.toy import small_view


def cascade(images: ImageSet, share: float) -> tuple[RoutedNetwork, float]:
    """A network behind a narrow form of itself that costs `share` of the dense one on `images`, and that in MACs."""
    torch.manual_seed(0)
    view = small_view()
    head = view.model.linear
    with torch.no_grad():  # so that it is sure of some images, and no class is the answer to all of them
        said = view.model(normalize(images.images, view.spec.mean, view.spec.std))
        head.weight /= said.std()
        head.bias.copy_((head.bias - said.mean(dim=0)) / said.std())
    network = convert(view, [Cascade(width=0.3)]).eval()
    costs = CostTable.measure(network)
    calibrate(network, images, costs, share * costs.dense)
    return network, share * costs.dense


def answered_by(network: RoutedNetwork, images: ImageSet) -> ImageSet:
    """The images as the network sees them: its answers are the right ones."""
    costs = CostTable.measure(network)
    right = [evaluate(network, replace(images, labels=images.labels * 0 + k), costs).correct for k in range(3)]
    return replace(images, labels=torch.stack(right, dim=1).long().argmax(dim=1))


def test_it_looks_again_where_that_is_right_more_often() -> None:
    pixels = torch.randint(0, 256, (96, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(96) % 3, ("red", "green", "blue"))
    network, target = cascade(images, 1.1)
    looking = look_again(network)
    calibrate(looking, images, CostTable.measure(looking), target)
    for truth, pays in ((answered_by(looking, images), True), (answered_by(network, images), False)):
        made, found = try_again(network, look_again(network), truth, target)
        assert (found.pays, made.looks_again) == (pays, pays)
        assert (found.again if pays else found.once) == 1 > (found.once if pays else found.again)
        measured = evaluate(made, truth, CostTable.measure(made))
        assert measured.accuracy == 1
        assert measured.cost == pytest.approx(target, rel=0.03)  # 96 images: one is 2% that goes on, or not
        assert (made is network) == (not pays)
        assert look_once(made).columns == network.columns
    assert not network.looks_again


def test_a_draw_is_no_reason_to_look_again() -> None:
    assert not SecondLook(once=0.9, again=0.9).pays


def test_a_tree_does_not_look_again() -> None:
    with pytest.raises(InputError, match="a tree takes exits alone beside it"):
        convert(small_view(), [Exit(), Tree(forks="stages"), Again()])
    network = convert(small_view(), [Exit(), Tree(forks="stages")])
    with pytest.raises(InputError, match="joins what is decided by certainty"):
        look_again(network)
