"""The formats are torchvision's own, with a handful of random images."""

import hashlib
import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from routekit.data.image_set import with_channels
from routekit.data.preprocessing import Preprocessing
from routekit.data.sources import load_data
from routekit.errors import InputError, RoutekitError

rng = np.random.default_rng(0)


def write_cifar10(root, monkeypatch):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    images, checks = [], {}
    for name in names:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]})
        (folder / name).write_bytes(content)
        checks[name] = hashlib.md5(content).hexdigest()
        images.append(torch.from_numpy(data).view(-1, 3, 32, 32))
    meta = pickle.dumps({"label_names": [f"class{i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, checks[name]] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[5], checks[names[5]]]])
    monkeypatch.setitem(datasets.CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())
    return torch.cat(images[:5]), images[5]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(root, name):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))


def test_cifar10(tmp_path, monkeypatch):
    train, test = write_cifar10(tmp_path, monkeypatch)
    data = load_data("cifar10", data_root=tmp_path, val_from_test=0.5)
    assert torch.equal(data.train.images, train)
    assert sorted(len(split) for split in (data.val, data.test)) == [10, 10]
    whole = torch.cat([data.val.images, data.test.images]).flatten(1)
    assert torch.equal(whole.sort(dim=0).values, test.flatten(1).sort(dim=0).values)
    assert data.classes[3] == "class3"
    assert (data.name, data.augmentation.flip) == ("cifar10", True)


def test_a_set_too_large_once_enlarged_is_enlarged_batch_by_batch(tmp_path, monkeypatch):
    train, _ = write_cifar10(tmp_path, monkeypatch)
    arguments = {"data_root": tmp_path, "val_from_test": 0.5, "preprocessing": Preprocessing((64, 64))}
    large = load_data("cifar10", **arguments, limit_memory_bytes=10**6)
    assert torch.equal(large.train.images, train)
    images, labels = next(large.train.batches(torch.tensor([5, 7]), 2))
    ahead = load_data("cifar10", **arguments).train
    assert ahead.images.shape == (100, 3, 64, 64)
    assert torch.equal(images, ahead.images[[5, 7]])
    assert labels.tolist() == [5, 7]


@pytest.mark.parametrize(
    ("name", "folder", "flip"), [("mnist", "MNIST", False), ("fashionmnist", "FashionMNIST", True)]
)
def test_grey_images_become_rgb_of_the_input_size(tmp_path, name, folder, flip):
    write_mnist(tmp_path, folder)
    data = load_data(name, data_root=tmp_path)
    assert len(data.train) + len(data.val) == 30
    assert data.val_origin == "train"
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])
    assert data.test.labels.tolist() == [i % 10 for i in range(20)]
    assert len(data.classes) == 10
    assert data.augmentation.flip is flip


def test_grey_images_stay_grey_for_a_network_that_takes_them(tmp_path):
    write_mnist(tmp_path, "MNIST")
    colour, grey = (
        load_data("mnist", data_root=tmp_path, preprocessing=Preprocessing((28, 28), each)) for each in (3, 1)
    )
    assert grey.test.images.shape == (20, 1, 28, 28)
    assert torch.equal(grey.test.images, colour.test.images[:, 2:])


def test_colours_become_their_luminance_for_a_network_that_takes_grey_images(tmp_path, monkeypatch):
    train, _ = write_cifar10(tmp_path, monkeypatch)
    arguments = {"data_root": tmp_path, "val_from_test": 0.5}
    grey = load_data("cifar10", **arguments, preprocessing=Preprocessing((32, 32), 1)).train
    assert torch.equal(grey.images, with_channels(train, 1))
    ahead = load_data("cifar10", **arguments, preprocessing=Preprocessing((48, 48), 1, 0.9, "bicubic")).train
    small = load_data(
        "cifar10", **arguments, preprocessing=Preprocessing((48, 48), 1, 0.9, "bicubic"), limit_memory_bytes=10**5
    ).train
    assert torch.equal(small.images, grey.images)
    assert torch.equal(next(small.batches(torch.tensor([5, 7]), 2))[0], ahead.images[[5, 7]])


def test_svhn(tmp_path, monkeypatch):
    checks = {}
    images = rng.integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": images, "y": np.arange(40)[:, None] % 10 + 1})
        checks[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", checks)
    data = load_data("svhn", data_root=tmp_path, val_from_test=0.5)
    assert torch.equal(data.train.images, torch.from_numpy(images).permute(3, 2, 0, 1))
    # The files count the digit 0 as class 10.
    assert data.train.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.classes == tuple("0123456789")
    assert not data.augmentation.flip


@pytest.mark.parametrize(
    ("name", "files"), [("cifar10", "cifar-10-batches-py"), ("mnist", "MNIST/raw"), ("svhn", "train_32x32.mat")]
)
def test_missing_files_name_their_place_and_the_way_out(tmp_path, name, files):
    with pytest.raises(InputError, match=f"{files}.*add data.download") as caught:
        load_data(name, data_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_not_taken_for_data(tmp_path):
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="missing or damaged"):
        load_data("mnist", data_root=tmp_path)


def test_a_root_is_needed():
    with pytest.raises(InputError, match=r"data\.root"):
        load_data("cifar100")


def test_a_failed_download_is_a_failure_at_run_time(tmp_path, monkeypatch):
    offline = Mock(side_effect=OSError("no network\nat all"))
    monkeypatch.setattr(datasets.CIFAR100, "download", offline)
    with pytest.raises(RoutekitError, match=r"cannot download cifar100 .*no network$") as caught:
        load_data("cifar100", data_root=tmp_path, download=True)
    assert caught.value.exit_code == 1
