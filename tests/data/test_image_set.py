from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from routekit.data.decode import decode, decode_all, fit
from routekit.data.image_set import FolderSet, ImageSet, resized, with_channels
from routekit.data.preprocessing import Preprocessing
from routekit.errors import InputError

SIZE = (8, 8)
SMALL = Preprocessing(SIZE)
GREY = Preprocessing(SIZE, channels=1)


@pytest.fixture
def files(tmp_path):
    """Seven images of the input size, each of one colour; lossless, so that colours come back."""
    paths = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", SIZE, (number, 10 * number, 255 - number)).save(path)
        paths.append(str(path))
    return paths


def image_set(n=7, preprocessing=None):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, 3, 8, 8)
    return ImageSet(images, torch.arange(n), tuple("abcdefg"), "toy", preprocessing)


def test_batches_follow_the_indices():
    batches = list(image_set().batches(torch.tensor([6, 0, 3]), 2))
    assert [labels.tolist() for _, labels in batches] == [[6, 0], [3]]
    assert [images[:, 0, 0, 0].tolist() for images, _ in batches] == [[6, 0], [3]]


def test_subset_keeps_order_and_classes():
    subset = image_set().subset(torch.tensor([5, 2]))
    assert len(subset) == 2
    assert subset.labels.tolist() == [5, 2]
    assert subset.images[:, 0, 0, 0].tolist() == [5, 2]
    assert (subset.classes, subset.name) == (tuple("abcdefg"), "toy")


def test_batches_of_a_small_set_come_at_the_input_size():
    images, _ = next(image_set(preprocessing=Preprocessing((16, 24))).batches(torch.arange(4), 4))
    assert images.shape == (4, 3, 16, 24)
    assert images.dtype == torch.uint8
    assert images[:, 0, 5, 5].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, 4, 4, dtype=torch.uint8)],
)
def test_an_image_set_refuses_other_tensors(images):
    with pytest.raises(ValueError, match="uint8 images"):
        ImageSet(images, torch.zeros(2, dtype=torch.long), ("a",))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_folder_set_yields_what_an_image_set_does(files, workers, monkeypatch):
    monkeypatch.setattr("routekit.data.image_set.WORKERS", workers)
    in_memory = ImageSet(decode_all(files, SMALL, chunk=2), torch.arange(7), tuple("abcdefg"))
    lazy = FolderSet(files, torch.arange(7), tuple("abcdefg"), SMALL)
    order = torch.tensor([4, 4, 0, 6, 5, 1, 2, 3, 0])
    for (x, y), (expected, labels) in zip(lazy.batches(order, 2), in_memory.batches(order, 2), strict=True):
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)
    assert expected[0, :, 0, 0].tolist() == [0, 0, 255]
    subset = lazy.subset(torch.tensor([3, 1]))
    assert subset.paths == [files[3], files[1]]
    assert subset.labels.tolist() == [3, 1]


def test_an_unreadable_image_is_named(files):
    Path(files[3]).write_bytes(b"not an image")
    lazy = FolderSet(files, torch.arange(7), tuple("abcdefg"), SMALL)
    with pytest.raises(InputError, match=r"cannot read the image .*3\.png") as caught:
        list(lazy.batches(torch.arange(7), 2))
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.jpg"):
        decode([str(path)], SMALL)


def test_a_grey_image_becomes_rgb(tmp_path):
    Image.new("L", SIZE, 77).save(tmp_path / "grey.png")
    assert (decode([str(tmp_path / "grey.png")], SMALL) == 77).all()


def test_the_centre_is_kept_and_other_sides_are_cut():
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    out = np.asarray(fit(Image.fromarray(pixels), Preprocessing((10, 10))))
    assert (out == 200).all()


def test_large_inputs_see_the_inner_seven_eighths():
    pixels = np.zeros((128, 128, 3), dtype=np.uint8)
    pixels[8:-8, 8:-8] = 200
    assert (np.asarray(fit(Image.fromarray(pixels), Preprocessing((112, 112)))) == 200).all()
    # Of the input size already: left alone.
    assert (np.asarray(fit(Image.fromarray(pixels), Preprocessing((128, 128)))) == pixels).all()


@pytest.mark.parametrize("shape", [(33, 7), (7, 33), (1, 1), (500, 333)])
def test_any_shape_fits(shape):
    assert fit(Image.new("RGB", shape), Preprocessing((32, 48))).size == (48, 32)


def test_a_colour_is_decoded_as_grey_by_hand(tmp_path):
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    Image.new("RGB", SIZE, (200, 100, 50)).save(tmp_path / "colour.png")
    Image.new("L", SIZE, 77).save(tmp_path / "grey.png")
    for read in (decode, decode_all):
        images = read([str(tmp_path / "colour.png"), str(tmp_path / "grey.png")], GREY)
        assert (images.shape, images.dtype) == ((2, 1, 8, 8), torch.uint8)
        assert images.flatten(1).unique(dim=1).flatten().tolist() == [124, 77]


def test_a_folder_of_grey_images(files):
    in_memory = ImageSet(decode_all(files, GREY), torch.arange(7), tuple("abcdefg"))
    lazy = FolderSet(files, torch.arange(7), tuple("abcdefg"), GREY)
    (x, _), (expected, _) = (next(each.batches(torch.arange(7), 7)) for each in (lazy, in_memory))
    assert x.shape == (7, 1, 8, 8)
    assert torch.equal(x, expected)


def test_arrays_turn_grey_as_files_do(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    grey = with_channels(images, 1)
    assert torch.equal(grey, decode([str(tmp_path / "noise.png")], Preprocessing((64, 64), channels=1)))
    wanted = (images.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    assert (grey[:, 0] - wanted).abs().max() < 0.51
    assert torch.equal(with_channels(with_channels(grey, 3), 1), grey)
    assert torch.equal(with_channels(grey, 3)[:, 2], grey[:, 0])


def test_an_explicit_crop_overrides_what_is_usual():
    pixels = np.zeros((128, 128, 3), dtype=np.uint8)
    pixels[32:-32, 32:-32] = 200
    image = Image.fromarray(pixels)

    def bright(size, crop):
        return float((np.asarray(fit(image, Preprocessing((size, size), crop=crop))) > 100).mean())

    # A quarter of the area is bright; the centre's half of each side is that quarter.
    assert bright(64, None) == bright(64, 1.0) == bright(128, None) == bright(128, 1.0) == 0.25
    assert bright(64, 0.5) == bright(112, 0.5) == 1.0
    # Though it has the size already.
    assert bright(128, 0.5) == 1.0
    assert bright(112, None) == bright(112, 0.875) > bright(112, 1.0)


def test_a_set_held_as_arrays_is_cropped_where_that_is_asked_for():
    images = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 8:-8, 8:-8] = 200
    assert torch.equal(resized(images, Preprocessing((32, 32))), images)
    cropped = resized(images, Preprocessing((32, 32), crop=0.5))
    assert cropped.shape == (2, 1, 32, 32)
    assert (cropped[..., 1:-1, 1:-1] == 200).all()
    assert resized(images, Preprocessing((20, 28), crop=0.875)).shape == (2, 1, 20, 28)


def test_bicubic_differs_from_bilinear():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    ways = [Preprocessing((24, 24), interpolation=each) for each in ("bilinear", "bicubic")]
    linear, cubic = (np.asarray(fit(Image.fromarray(pixels), each)).astype(int) for each in ways)
    assert np.abs(linear - cubic).max() > 10
    linear, cubic = (resized(torch.from_numpy(pixels).permute(2, 0, 1)[None], each).int() for each in ways)
    assert (linear - cubic).abs().max() > 10


def test_what_no_image_is_read_with_is_refused():
    with pytest.raises(InputError, match=r"the network takes 2: put a layer in front") as caught:
        Preprocessing(SIZE, channels=2)
    assert "\n" not in str(caught.value)
    for crop in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(InputError, match="crop is a share"):
            Preprocessing(SIZE, crop=crop)
