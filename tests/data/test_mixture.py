"""Some classes of a set, and several sets as one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routekit.data.image_set import ImageSet
from routekit.data.mixture import CONTRAST, colour, mixture, parts_of
from routekit.data.preprocessing import Preprocessing
from routekit.data.provided import Provided
from routekit.data.sources import load_data
from routekit.errors import InputError


def numbered(classes: str, first: int, **options: object) -> Provided:
    """Two images of each class a split, of one grey that says which image it is."""
    names = tuple(classes)

    def split(start: int) -> ImageSet:
        values = torch.arange(start, start + 2 * len(names), dtype=torch.uint8)
        return ImageSet(values.view(-1, 1, 1, 1).repeat(1, 3, 2, 2), torch.arange(len(values)) // 2, names, classes)

    return Provided(split(first), split(first + 100), **options)


SETS = {"abc": numbered("abc", 0), "xy": numbered("xy", 50, flip=False), "grey": numbered("pq", 80, grey=True)}


def made(source: str) -> Provided:
    parts = parts_of(source)
    assert parts is not None
    return mixture(parts, SETS.__getitem__)


def values(images: ImageSet) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_some_classes_in_the_order_given() -> None:
    some = made("abc[c,a]")
    assert some.train.classes == ("c", "a")
    assert values(some.train) == [0, 1, 4, 5]
    assert some.train.labels.tolist() == [1, 1, 0, 0]
    assert values(some.test) == [100, 101, 104, 105]


def test_all_others_are_one_class() -> None:
    some = made("abc[b,*]")
    assert some.train.classes == ("b", "other")
    assert some.train.labels.tolist() == [1, 1, 0, 0, 1, 1]


def test_several_sets_are_one() -> None:
    both = made("abc[b]+xy")
    assert both.train.classes == ("b", "x", "y")
    assert values(both.train) == [2, 3, 50, 51, 52, 53]
    assert both.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    # A mirror changes the letters of the second set alone.
    assert both.flip
    assert both.unflipped == (1, 2)


def test_greyscale_images_are_coloured_where_they_meet_others() -> None:
    assert torch.equal(made("grey[p,q]").train.images, SETS["grey"].train.images)
    images = made("abc+grey").train.images
    assert torch.equal(images[:6], SETS["abc"].train.images)
    assert not torch.equal(images[6:, 0], images[6:, 1])
    assert torch.equal(made("abc+grey").train.images, images)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_the_two_colours_are_far_apart(seed: int) -> None:
    images = torch.zeros(20, 3, 1, 3, dtype=torch.uint8)
    images[..., 1], images[..., 2] = 255, 51
    dark, bright, between = colour(images, torch.Generator().manual_seed(seed)).float().div(255).unbind(dim=3)
    assert ((dark - bright).square().sum(dim=(1, 2)).sqrt() > CONTRAST - 0.01).all()
    torch.testing.assert_close(between, 0.8 * dark + 0.2 * bright, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("abc[d]", r"abc has no class 'd': known: a, b, c"),
        ("abc[]", "abc has no class ''"),
        ("abc[a,a]", "names 'a' twice"),
        ("abc+abc", "class 'a' is in two of these sets"),
        ("abc[a,*]+xy[x,*]", "class 'other' is in two"),
        ("abc[a", "is no data set"),
        ("abc[a]+", "is no data set"),
    ],
)
def test_bad_mixtures_are_refused(source: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        made(source)


def test_a_mixture_is_loaded_as_any_set() -> None:
    data = load_data("digits[0,1,*]", preprocessing=Preprocessing((16, 16)), fill="mean")
    assert data.classes == ("0", "1", "other")
    assert (len(data.train), len(data.val), len(data.test)) == (1097, 300, 400)
    assert data.augmentation.fill == "mean"
    assert not data.augmentation.flip
    with pytest.raises(InputError, match="no folder and no data set is called 'digts'"):
        load_data("digts[0]+digits[1]")


def test_a_mixture_for_a_network_that_sees_no_colours() -> None:
    grey = Preprocessing((8, 8), channels=1)
    both, fours = (
        load_data("digits[0,1]+digits[4]", preprocessing=grey),
        load_data("digits[4]+digits[0]", preprocessing=grey),
    )
    assert both.train.images.shape[1:] == (1, 8, 8)
    # As they are: neither coloured nor anything else.
    assert torch.equal(both.test.images[80:], fours.test.images[:40])
    alone = load_data("digits[4,*]", preprocessing=grey).test
    assert torch.equal(both.test.images[80:], alone.images[alone.labels == 0])
