from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from routekit.data.decode import decode, decode_all, fit
from routekit.data.image_set import FolderSet, ImageSet
from routekit.errors import InputError

SIZE = (8, 8)


@pytest.fixture
def files(tmp_path):
    """Seven images of the input size, each of one colour; lossless, so that colours come back."""
    paths = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", SIZE, (number, 10 * number, 255 - number)).save(path)
        paths.append(str(path))
    return paths


def image_set(n=7, size=None):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).repeat(1, 3, 8, 8)
    return ImageSet(images, torch.arange(n), tuple("abcdefg"), "toy", size)


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
    images, _ = next(image_set(size=(16, 24)).batches(torch.arange(4), 4))
    assert images.shape == (4, 3, 16, 24)
    assert images.dtype == torch.uint8
    assert images[:, 0, 5, 5].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 4, 4), torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)],
)
def test_an_image_set_refuses_other_tensors(images):
    with pytest.raises(ValueError, match="uint8 images"):
        ImageSet(images, torch.zeros(2, dtype=torch.long), ("a",))


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_folder_set_yields_what_an_image_set_does(files, num_workers):
    in_memory = ImageSet(decode_all(files, SIZE, chunk=2), torch.arange(7), tuple("abcdefg"))
    lazy = FolderSet(files, torch.arange(7), tuple("abcdefg"), SIZE, num_workers=num_workers)
    order = torch.tensor([4, 4, 0, 6, 5, 1, 2, 3, 0])
    for (x, y), (expected, labels) in zip(lazy.batches(order, 2), in_memory.batches(order, 2), strict=True):
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)
    assert expected[0, :, 0, 0].tolist() == [0, 0, 255]
    subset = lazy.subset(torch.tensor([3, 1]))
    assert subset.paths == [files[3], files[1]]
    assert subset.labels.tolist() == [3, 1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_is_named(files, num_workers):
    Path(files[3]).write_bytes(b"not an image")
    lazy = FolderSet(files, torch.arange(7), tuple("abcdefg"), SIZE, num_workers=num_workers)
    with pytest.raises(InputError, match=r"cannot read the image .*3\.png") as caught:
        list(lazy.batches(torch.arange(7), 2))
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.jpg"):
        decode([str(path)], SIZE)


def test_a_grey_image_becomes_rgb(tmp_path):
    Image.new("L", SIZE, 77).save(tmp_path / "grey.png")
    assert (decode([str(tmp_path / "grey.png")], SIZE) == 77).all()


def test_the_centre_is_kept_and_other_sides_are_cut():
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    out = np.asarray(fit(Image.fromarray(pixels), (10, 10)))
    assert (out == 200).all()


def test_large_inputs_see_the_inner_seven_eighths():
    pixels = np.zeros((128, 128, 3), dtype=np.uint8)
    pixels[8:-8, 8:-8] = 200
    assert (np.asarray(fit(Image.fromarray(pixels), (112, 112))) == 200).all()
    # Of the input size already: left alone.
    assert (np.asarray(fit(Image.fromarray(pixels), (128, 128))) == pixels).all()


@pytest.mark.parametrize("shape", [(33, 7), (7, 33), (1, 1), (500, 333)])
def test_any_shape_fits(shape):
    assert fit(Image.new("RGB", shape), (32, 48)).size == (48, 32)
