from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routekit.data.augment import GREY, Augmentation, crop_and_flip, crop_and_resize, cutout, normalize
from routekit.data.views import augmented_copies

# One 3x3 image, whose pixels are told apart by their value.
IMAGE = torch.tensor([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], dtype=torch.uint8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crop(top, left, flipped, pad=1):
    arguments = torch.tensor([top]), torch.tensor([left]), torch.tensor([flipped])
    return crop_and_flip(IMAGE, pad, *arguments)[0, 0].tolist()


@pytest.mark.parametrize(
    ("top", "left", "flipped", "expected"),
    [
        (1, 1, False, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (1, 1, True, [[3, 2, 1], [6, 5, 4], [9, 8, 7]]),
        (0, 1, False, [[0, 0, 0], [1, 2, 3], [4, 5, 6]]),
        (2, 2, False, [[5, 6, 0], [8, 9, 0], [0, 0, 0]]),
        (0, 0, True, [[0, 0, 0], [2, 1, 0], [5, 4, 0]]),
    ],
)
def test_crop_and_flip_by_hand(top, left, flipped, expected):
    assert crop(top, left, flipped) == expected


def test_each_sample_has_its_own_crop():
    images = IMAGE.repeat(2, 1, 1, 1)
    out = crop_and_flip(images, 1, torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([False, True]))
    assert out[:, 0].tolist() == [crop(0, 1, False), crop(1, 1, True)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pad=st.integers(0, 4),
    flip=st.booleans(),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_augmentation_moves_pixels_and_makes_none(seed, pad, flip, height, width):
    """Each output pixel is zero or comes, all channels together, from the row of the input that lies `down` below."""
    place = torch.arange(1, height * width + 1, dtype=torch.uint8).view(height, width)
    images = torch.stack([place, place + 100, 255 - place]).expand(5, 3, height, width)
    out = Augmentation(pad, flip)(images, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    inside = out[:, 0] > 0
    assert torch.equal(out[:, 1] * inside, (out[:, 0] + 100) * inside)
    assert torch.equal(out[:, 2] * inside, (255 - out[:, 0]) * inside)
    assert not out.masked_fill(inside[:, None], 0).any()
    for sample, here in zip(out[:, 0].long() - 1, inside, strict=True):
        ys, xs = here.nonzero().unbind(1)
        shift = sample[here] // width - ys
        assert len(shift.unique()) <= 1
        assert (shift.abs() <= pad).all()
        mirrored = (sample[here] % width) + xs
        straight = (sample[here] % width) - xs
        assert len(straight.unique()) <= 1 or (flip and len(mirrored.unique()) == 1)


def test_all_shifts_and_both_flips_occur():
    images = torch.zeros(2000, 3, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 1  # a dot in the centre shows the shift
    images[:, :, 2, 3] = 2  # and its neighbour the flip
    out = Augmentation(pad=1, flip=True)(images, generator())[:, 0]
    dots = (out == 1).nonzero()[:, 1:]
    assert len(dots) == 2000
    assert dots.unique(dim=0).tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    neighbours = (out == 2).nonzero()[:, 1:]
    mirrored = (neighbours[:, 1] < dots[:, 1]).float().mean()
    assert 0.45 < mirrored < 0.55


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation.of((96, 96), flip=True)])
def test_the_generator_determines_the_result(augmentation):
    images = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8, generator=generator())
    first, again, other = (augmentation(images, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    Augmentation()(IMAGE.expand(2, 3, 3, 3), generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_whole_box_is_the_image_and_its_mirror():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    out = crop_and_resize(IMAGE.repeat(2, 1, 1, 1), boxes, torch.tensor([False, True]))
    assert torch.equal(out[:1], IMAGE)
    assert torch.equal(out[1:], IMAGE.flip(3))


def test_a_quarter_is_enlarged():
    image = torch.zeros(1, 1, 8, 8)
    image[:, :, :4, 4:] = 1  # the upper right quarter: centre (0.5, -0.5), half as wide and high
    out = crop_and_resize(image, torch.tensor([[0.5, -0.5, 0.5, 0.5]]), torch.tensor([False]))
    assert (out[0, 0, :-1, 1:] == 1).all()
    # The pixels along the quarter's inner edges are interpolated a quarter of a pixel outwards.
    assert out[0, 0, 0, 0] == pytest.approx(0.75)


def test_drawn_boxes_stay_inside_and_have_the_area():
    x, y, width, height = Augmentation.of((224, 224), flip=True)._boxes(1000, generator()).unbind(1)
    assert (x.abs() + width <= 1 + 1e-6).all()
    assert (y.abs() + height <= 1 + 1e-6).all()
    assert (width * height).max() <= 1
    # Clamping a side to the image makes a box smaller, but seldom by much.
    assert (width * height).min() >= 0.35 - 1e-6
    assert 0.6 < (width * height).mean() < 0.7


@pytest.mark.parametrize(("size", "pad", "area"), [(32, 4, None), (95, 11, None), (96, 0, (0.35, 1.0))])
def test_large_inputs_are_cropped_and_resized(size, pad, area):
    assert Augmentation.of((size, size), flip=False) == Augmentation(pad, flip=False, area=area)


def test_normalize_by_hand():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    out = normalize(images, mean=(0.5, 0.2, 0.0), std=(0.25, 0.1, 2.0))
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out[1, :, 2, 3], torch.tensor([-2.0, 0.0, 0.5]), atol=1e-6, rtol=0)


def test_one_mean_is_for_all_channels():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(images, (0.2,), (0.4,)), normalize(images, (0.2,) * 3, (0.4,) * 3))
    torch.testing.assert_close(normalize(images, (0.2,), (0.4,)).flatten(), torch.tensor([-0.5, 0.0, 2.0]))
    torch.testing.assert_close(normalize(images[:, 1:2], (0.2,), (0.4,)), torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match="mean has 3 values, the images have 1 channels"):
        normalize(images[:, :1], (0.5, 0.5, 0.5), (0.25,))


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(), Augmentation(fill="mean"), Augmentation(unflipped=(1,)), Augmentation.of((96, 96), flip=True)],
)
def test_a_grey_image_is_varied_as_a_colour_of_equal_channels_is(augmentation):
    grey = torch.randint(0, 256, (4, 1, 96, 96), dtype=torch.uint8, generator=generator())
    labels = torch.tensor([0, 1, 0, 1])
    out = augmentation(grey, generator(1), labels)
    assert (out.shape, out.dtype) == (grey.shape, torch.uint8)
    assert torch.equal(out, augmentation(grey.repeat(1, 3, 1, 1), generator(1), labels)[:, 1:2])


def test_copies_of_a_sample_are_adjacent_and_differ():
    images = torch.arange(1, 4, dtype=torch.uint8).view(3, 1, 1, 1).repeat(1, 3, 8, 8)
    labels = torch.arange(len(images))
    out, repeated = augmented_copies(images, labels, 5, Augmentation(pad=4, flip=False), generator())
    assert torch.equal(repeated.view(-1, 5), labels.unsqueeze(1).expand(-1, 5))
    assert out.shape == (15, 3, 8, 8)
    views = out.view(3, 5, 3 * 64)
    assert views.amax(dim=(1, 2)).tolist() == [1, 2, 3]
    assert all(len(view.unique(dim=0)) > 1 for view in views)


def test_one_copy_is_plain_augmentation():
    images = IMAGE.expand(6, 3, 3, 3)
    once = Augmentation(1, flip=True)(images, generator(3))
    labels = torch.zeros(len(images), dtype=torch.int64)
    assert torch.equal(augmented_copies(images, labels, 1, Augmentation(1, flip=True), generator(3))[0], once)


def test_classes_that_a_mirror_changes_are_not_mirrored():
    images = torch.arange(3 * 16).view(1, 3, 4, 4).to(torch.uint8).repeat(200, 1, 1, 1)
    labels = torch.arange(200) % 2
    out = Augmentation(pad=0, flip=True, unflipped=(1,))(images, generator(), labels)
    mirrored = (out == images.flip(3)).flatten(1).all(dim=1)
    assert not mirrored[labels == 1].any()
    assert 30 < mirrored[labels == 0].sum() < 70


def test_shifted_images_are_filled_with_their_mean_colour():
    images = torch.tensor([[10.0, 20.0, 30.0]]).view(1, 3, 1, 1).expand(1, 3, 4, 4).to(torch.uint8)
    for seed in range(8):
        for fill in ("mean", "decoded-mean"):
            assert torch.equal(Augmentation(pad=3, flip=False, fill=fill)(images, generator(seed)), images)
        dark = Augmentation(pad=3, flip=False)(images, generator(seed))
        assert torch.equal(dark == 0, dark != images)


def test_the_mean_colour_is_of_pixels_or_of_their_light():
    """Half black, half white: 127.5 of pixels; half of the light is 255 * 0.5 ** (1 / 2.2) = 186.1."""
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 6, 2).repeat(1, 1, 1, 3)
    for fill, want in (("mean", 128), ("decoded-mean", 186)):
        seen = {
            int(value)
            for seed in range(8)
            for value in Augmentation(pad=2, flip=False, fill=fill)(images, generator(seed)).unique()
        }
        assert seen == {0, want, 255}


@pytest.mark.parametrize("size", [32, 96])
def test_autoaugment_is_drawn_from_the_generator_alone(size: int):
    images = torch.randint(0, 256, (6, 3, size, size), dtype=torch.uint8, generator=generator())
    varied = Augmentation.of((size, size), flip=True, policy="autoaugment")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    out = varied(images, generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(varied(images, generator(1)), out)
    assert not torch.equal(varied(images, generator(2)), out)
    plain = Augmentation.of((size, size), flip=True)(images, generator(1))
    assert (out.shape, out.dtype) == (plain.shape, torch.uint8)
    changed = (out != plain).flatten(1).any(dim=1)
    assert changed.any()  # beside what is done without


@pytest.mark.parametrize("width", [16, 20])
def test_cutout_greys_a_square_anywhere(width: int):
    images = torch.full((400, 3, 32, 32), 7, dtype=torch.uint8)
    hidden = cutout(images, torch.Generator().manual_seed(0), width / 32) == GREY
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    rows, columns = hidden[:, 0].any(dim=2).sum(dim=1), hidden[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(hidden[:, 0].sum(dim=(1, 2)), rows * columns)  # a rectangle
    assert (int(rows.max()), int(columns.max())) == (width, width)
    assert width / 2 <= int(rows.min()) <= width / 2 + 1  # its centre is in the image
    assert hidden[:, 0].any(dim=0).all()


def test_small_images_that_are_not_mirrored_get_the_policy_of_svhn():
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    digits, others = (
        Augmentation(pad=0, flip=flip, policy="autoaugment")(images, torch.Generator().manual_seed(3))
        for flip in (False, True)
    )
    assert not torch.equal(digits, others)
    widths = []
    with patch("torchvision.transforms.v2.AutoAugment", side_effect=lambda policy: lambda image: image) as made:
        for flip in (False, True):
            plain = torch.full((200, 3, 32, 32), 7, dtype=torch.uint8)
            out = Augmentation(pad=0, flip=flip, policy="autoaugment")(plain, torch.Generator().manual_seed(3))
            widths.append(int((out != 7)[:, 0].any(dim=1).sum(dim=1).max()))
    assert [call.args[0].name for call in made.call_args_list] == ["SVHN", "CIFAR10"]
    assert widths == [20, 16]  # of Cutout
