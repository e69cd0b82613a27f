import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from routekit.backbones.unit import ModelSpec
from routekit.data.augment import Augmentation
from routekit.data.image_set import FolderSet, ImageSet
from routekit.data.preprocessing import Preprocessing
from routekit.data.sources import load_data
from routekit.errors import InputError

CLASSES = ("cat", "dog")


def write_split(folder, per_class, classes=CLASSES, start=0):
    """Images of one colour; the red value tells every image of a tree apart."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            red = start + number * per_class + i
            Image.new("RGB", (32, 32), (red, number, 0)).save(folder / name / f"{i:02}.png")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "pets"
    write_split(root / "train", 10)
    write_split(root / "test", 5, start=100)
    return root


def reds(images):
    return [int(x[0, 0, 0]) for batch, _ in images.batches(torch.arange(len(images)), 3) for x in batch]


def test_the_digits_split_is_fixed_disjoint_and_stratified():
    first, again = load_data("digits"), load_data("digits", seed=7)
    splits = (first.train, first.val, first.test)
    assert [len(split) for split in splits] == [1097, 300, 400]
    assert first.val.labels.bincount().tolist() == [30] * 10
    assert first.test.labels.bincount().tolist() == [40] * 10
    for split, other in zip(splits, (again.train, again.val, again.test), strict=True):
        assert torch.equal(split.images, other.images)
    # Scikit-learn's digits hold no image twice, so equality of pixels is identity.
    everything = torch.cat([split.images for split in splits])
    assert everything.shape == (1797, 3, 32, 32)
    assert everything.dtype == torch.uint8
    assert len(everything[:, 0].flatten(1).unique(dim=0)) == 1797
    assert first.val_origin == "fixed"
    assert not first.warnings
    assert first.augmentation == Augmentation(pad=4, flip=False)


def test_the_digits_split_is_the_one_that_reports_use():
    test = load_data("digits").test
    assert test.labels[:12].tolist() == [0, 4, 1, 2, 6, 7, 5, 6, 9, 1, 7, 5]
    # Nearly, because interpolation may round a tie the other way on another machine.
    assert int(test.images[:, 0].long().sum()) == pytest.approx(31_689_347, rel=1e-4)


def test_a_folder_with_val(tree):
    write_split(tree / "val", 3, start=200)
    data = load_data(str(tree), preprocessing=Preprocessing((32, 32)))
    assert isinstance(data.train, ImageSet)
    assert data.train.images.shape == (20, 3, 32, 32)
    assert data.train.labels.tolist() == [0] * 10 + [1] * 10
    assert reds(data.train) == list(range(20))
    assert reds(data.test) == list(range(100, 110))
    assert reds(data.val) == list(range(200, 206))
    assert (data.name, data.classes, data.val_origin, data.warnings) == ("pets", CLASSES, "folder", [])
    assert data.augmentation == Augmentation(pad=4, flip=True)


def test_images_over_the_memory_limit_stay_in_their_files(tree):
    data = load_data(str(tree), limit_memory_bytes=30 * 3 * 32 * 32)
    assert isinstance(data.train, FolderSet)
    in_memory = load_data(str(tree), limit_memory_bytes=30 * 3 * 32 * 32 + 1)
    assert isinstance(in_memory.train, ImageSet)
    assert reds(data.val) == reds(in_memory.val)


def test_carved_from_train_by_seed_with_a_warning(tree):
    first, again = (load_data(str(tree), seed=0) for _ in range(2))
    assert first.val_origin == "train"
    assert "data.val_from_test=40%" in first.warnings[0]
    assert first.val.labels.tolist() == [0, 1]
    assert sorted(reds(first.train) + reds(first.val)) == list(range(20))
    assert reds(first.val) == reds(again.val)
    assert any(reds(load_data(str(tree), seed=seed).val) != reds(first.val) for seed in range(1, 6))
    assert reds(first.test) == list(range(100, 110))


def test_carved_from_test(tree):
    data = load_data(str(tree), val_from_test=0.4)
    assert (data.val_origin, data.warnings) == ("test", [])
    assert data.val.labels.tolist() == [0, 0, 1, 1]
    assert sorted(reds(data.val) + reds(data.test)) == list(range(100, 110))
    assert reds(data.train) == list(range(20))


@pytest.mark.parametrize("inner", ["", "val"])
def test_validation_from_a_folder_of_its_own(tree, tmp_path, inner):
    write_split(tmp_path / "held" / inner, 2, start=50)
    data = load_data(str(tree), val=tmp_path / "held")
    assert data.val_origin == "folder"
    assert reds(data.val) == [50, 51, 52, 53]
    assert reds(data.train) == list(range(20))


def test_hidden_and_foreign_files_are_passed_over(tree):
    (tree / "train" / ".cache").mkdir()
    (tree / "train" / "cat" / "notes.txt").write_text("x")
    (tree / "train" / "cat" / "._00.png").write_text("x")
    assert len(load_data(str(tree), val_from_test=0.5).train) == 20


def one_line(match, source, **arguments):
    with pytest.raises(InputError, match=match) as caught:
        load_data(str(source), **arguments)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_suggests_the_nearest():
    one_line(r"'cifr10': did you mean cifar10", "cifr10")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "x.zip").write_text("")
    one_line(r"x\.zip is not a folder", tmp_path / "x.zip")


def test_an_empty_folder(tmp_path):
    one_line(r"has no train/: it needs train/CLASS", tmp_path)


def test_no_test_split(tmp_path):
    write_split(tmp_path / "train", 1)
    one_line(r"has no test/: it needs test/CLASS", tmp_path)
    (tmp_path / "val").mkdir()
    one_line(r"has no test/: rename val/", tmp_path)


def test_no_class_folders(tree):
    for name in CLASSES:
        (tree / "test" / name).rename(tree / name)
    one_line(r"test has no class folders", tree)


def test_no_images_at_all(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    one_line(r"train has no images", tmp_path)


def test_an_empty_class_folder(tree):
    (tree / "train" / "emu").mkdir()
    one_line(r"train/emu has no images", tree)


def test_classes_that_differ_between_splits(tree):
    (tree / "test" / "dog").rename(tree / "test" / "emu")
    one_line(r"pets/test .*pets/train .*lacks dog and has emu", tree)


def test_validation_classes_that_differ(tree, tmp_path):
    write_split(tmp_path / "held", 2, classes=("cat", "emu"))
    one_line(r"held .*lacks dog and has emu", tree, val=tmp_path / "held")
    one_line(r"gone does not exist", tree, val=tmp_path / "gone")


def test_an_unreadable_image(tree):
    (tree / "test" / "dog" / "03.png").write_bytes(b"")
    one_line(r"test/dog/03\.png", tree)


def test_too_few_images_to_carve(tmp_path):
    for split in ("train", "test"):
        write_split(tmp_path / split, 1)
    one_line(r"too few images .*data.val=DIR", tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 40.0, float("nan")])
def test_a_fraction_out_of_range(tree, fraction):
    one_line(r"data\.val_from_test", tree, val_from_test=fraction)


def test_two_origins_of_validation_images(tree):
    one_line(r"give one of them", tree, val=tree, val_from_test=0.5)


def test_a_networks_specification_says_how_images_are_read():
    assert ModelSpec("custom", "own", 2, (3, 32, 48)).preprocessing == Preprocessing((32, 48))
    grey = ModelSpec("custom", "own", 2, (1, 8, 8), crop=0.9, interpolation="bicubic")
    assert grey.preprocessing == Preprocessing((8, 8), 1, 0.9, "bicubic")
    with pytest.raises(InputError, match=r"the network takes 2: put a layer"):
        load_data("digits", preprocessing=ModelSpec("custom", "own", 2, (2, 28, 28)).preprocessing)


def test_digits_for_a_network_that_takes_grey_images():
    colour, grey = (load_data("digits", preprocessing=Preprocessing((28, 28), each)) for each in (3, 1))
    assert grey.test.images.shape == (400, 1, 28, 28)
    assert torch.equal(grey.test.images, colour.test.images[:, :1])
    cropped = load_data("digits", preprocessing=Preprocessing((28, 28), 1, crop=0.8)).test.images
    assert cropped.shape == grey.test.images.shape
    assert not torch.equal(cropped, grey.test.images)
    cubic = load_data("digits", preprocessing=Preprocessing((28, 28), 1, interpolation="bicubic")).test.images
    # Where a cubic overshoots, white stays white and black stays black.
    assert (cubic.int() - grey.test.images.int()).abs().max() < 100
    assert not torch.equal(cubic, grey.test.images)


def test_a_folder_of_grey_images(tree):
    data = load_data(str(tree), preprocessing=Preprocessing((32, 32), 1), val_from_test=0.4)
    assert data.train.images.shape == (20, 1, 32, 32)
    # 0.299 of the red value, and 0.587 of a green of 1 for the second class.
    assert [int(value) for value in data.train.images[:, 0, 0, 0]] == [
        round(0.299 * red + 0.587 * (red >= 10)) for red in range(20)
    ]
    limit = 30 * 32 * 32 + 1
    assert isinstance(
        load_data(str(tree), preprocessing=Preprocessing((32, 32), 1), limit_memory_bytes=limit).train, ImageSet
    )


def test_importing_the_data_layer_is_cheap():
    code = "import sys, routekit.data.sources; sys.exit(any(m in sys.modules for m in ('sklearn', 'torchvision')))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_thirty_two_refused(tmp_path, suffix):
    from routekit.data.decode import decode

    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / f"deep.{suffix}")
    found = decode([str(tmp_path / f"deep.{suffix}")], Preprocessing((32, 32), 1))
    assert torch.equal(found[0, 0], torch.from_numpy(np.rint(ramp.astype(np.uint16) / 257).astype(np.uint8)))
    for kind in (np.float32, np.int32):
        Image.fromarray(ramp.astype(kind)).save(tmp_path / "raw.tif")
        with pytest.raises(InputError, match="its pixels have 32 bits"):
            decode([str(tmp_path / "raw.tif")], Preprocessing((32, 32), 3))


def test_a_pipe_is_no_image(tmp_path):
    from routekit.data.decode import decode

    os.mkfifo(tmp_path / "photo.png")
    with pytest.raises(InputError, match="no regular file"):
        decode([str(tmp_path / "photo.png")], Preprocessing((32, 32), 3))
