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
from routekit.errors import InputError, RoutekitError


def torchvision_set(request: Request, *, name: str, files: str, flip: bool) -> Provided:
    """Read the two splits of torchvision's class `name`, whose files are `files` under the data root.

    Raises InputError if the files are missing or damaged, RoutekitError if they cannot be downloaded.
    """
    if request.data_root is None:
        raise InputError(f"{name.lower()} needs --data-root DIR, the folder that holds {files}; --download fetches it")
    if request.download:
        _download(name, request.data_root)
    try:
        train, test = (_open(name, request.data_root, is_train=is_train) for is_train in (True, False))
    # Missing and damaged files; which error it is depends on the format.
    except (RuntimeError, OSError, ValueError, AssertionError) as error:
        where = request.data_root / files
        raise InputError(f"{name.lower()} is missing or damaged at {where}: add --download to fetch it") from error
    fits = request.fits(len(train) + len(test))
    train, test = (_image_set(split, name.lower(), request.preprocessing, fits) for split in (train, test))
    return Provided(train, test, flip=flip, grey="MNIST" in name)


def _download(name: str, root: Path) -> None:
    try:
        for is_train in (True, False):
            _open(name, root, is_train=is_train, download=True)
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RoutekitError(f"cannot download {name.lower()} into {root}: {reason}") from error


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
