"""The small-image data sets that torchvision reads and downloads."""

import contextlib
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.data.image_set import ImageSet, resized, with_channels
from routekit.data.preprocessing import Preprocessing
from routekit.data.provided import Provided, Request, named_sets
from routekit.errors import InputError, RoutekitError, first_line


def torchvision_set(request: Request, *, name: str, files: str, flip: bool) -> Provided:
    """Read the two splits of a data set of torchvision.

    Args:
        request: How images are read.
        name: The class in `torchvision.datasets`.
        files: Its files below the data root, for messages.
        flip: Whether a mirrored image is of the same class.

    Returns:
        The data set.

    Raises:
        InputError: The files are missing or damaged.
        RoutekitError: They cannot be downloaded.
    """
    root, label = request.data_root, name.lower()
    if root is None:
        raise InputError(f"{label} needs data.root=DIR, the folder that holds {files}; data.download fetches it")
    if request.download:
        try:
            for is_train in (True, False):
                _open(name, root, is_train=is_train, download=True)
        except (RuntimeError, OSError) as error:
            raise RoutekitError(f"cannot download {label} into {root}: {first_line(error)}") from error
    try:
        splits = [_open(name, root, is_train=is_train) for is_train in (True, False)]
    # Missing and damaged files; which error it is depends on the format.
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        raise InputError(f"{label} is missing or damaged at {root / files}: add data.download to fetch it") from error
    fits = request.fits(sum(map(len, splits)))
    train, test = (_image_set(split, label, request.preprocessing, fits) for split in splits)
    return Provided(train, test, flip=flip, grey="MNIST" in name)


def _open(name: str, root: Path, *, is_train: bool, download: bool = False) -> Any:
    from torchvision import datasets

    split = {"split": "train" if is_train else "test"} if name == "SVHN" else {"train": is_train}
    # Standard output is kept for results; CIFAR's published pickles spell a dtype as NumPy no longer likes.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(datasets, name)(root, download=download, **split)


def _image_set(split: Any, name: str, preprocessing: Preprocessing, fits: bool) -> ImageSet:
    """Arrays [N, h, w], [N, h, w, 3] or [N, 3, h, w] -> an image set, resized now or batch by batch."""
    images: Tensor = torch.as_tensor(split.data)
    if images.dim() == 3:
        images = images[:, None]
    elif images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    images = with_channels(images, preprocessing.channels)
    if fits:
        images = torch.cat([resized(chunk, preprocessing) for chunk in torch.split(images, 4096)])
    labels = torch.as_tensor(split.labels if name == "svhn" else split.targets).long()
    classes = tuple(getattr(split, "classes", None) or map(str, range(10)))
    return ImageSet(images.contiguous(), labels, classes, name, None if fits else preprocessing)


for _name, _files, _flip in (
    ("CIFAR10", "cifar-10-batches-py", True),
    ("CIFAR100", "cifar-100-python", True),
    ("FashionMNIST", "FashionMNIST/raw", True),
    ("MNIST", "MNIST/raw", False),
    ("SVHN", "train_32x32.mat and test_32x32.mat", False),
):
    named_sets.register(_name.lower())(partial(torchvision_set, name=_name, files=_files, flip=_flip))
