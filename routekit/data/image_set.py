"""Labelled images, in memory or in files, with the same methods."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.data.decode import decode
from routekit.data.preprocessing import Preprocessing

Batches = Iterator[tuple[Tensor, Tensor]]

# Threads that decode files ahead.
WORKERS = min(4, os.cpu_count() or 1)


class Images(Protocol):
    """N labelled images."""

    @property
    def labels(self) -> Tensor:
        """Int64 [N], indices into `classes`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""

    @property
    def name(self) -> str:
        """What to call the set in messages."""

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order."""

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Read images in batches; the last one may be smaller.

        Args:
            indices: Which images, in this order, int64 [M].
            batch_size: B, the number of images of a batch.

        Yields:
            Uint8 images [B, C, H, W] at the network's input size, and int64 labels [B].
        """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images held in memory: uint8 [N, 3, h, w], or [N, 1, h, w] for grey ones.

    `preprocessing` is for a set that is small only at its own size: then each batch is resized.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        n, shape = len(self.labels), self.images.shape
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[0] != n or shape[1] not in (1, 3):
            got = f"{str(self.images.dtype).removeprefix('torch.')} {list(shape)}"
            raise ValueError(f"an image set takes uint8 images [{n}, 3 or 1, H, W] for its {n} labels, not {got}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order; a copy."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Read images in batches, as `Images.batches`.

        Args:
            indices: Which images, in this order, int64 [M].
            batch_size: B, the number of images of a batch.

        Yields:
            Uint8 images [B, C, H, W], and int64 labels [B].
        """
        for chunk in torch.split(indices, batch_size):
            yield resized(self.images[chunk], self.preprocessing), self.labels[chunk]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Images too many for memory: decoded from N files, batch by batch, as `preprocessing` defines."""

    paths: list[str]
    labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    name: str = "images"

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order; nothing is decoded."""
        return replace(self, paths=self._paths(indices), labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Read images in batches, as `Images.batches`.

        Args:
            indices: Which images, in this order, int64 [M].
            batch_size: B, the number of images of a batch.

        Yields:
            Uint8 images [B, C, H, W], and int64 labels [B].

        Raises:
            InputError: An image cannot be read; its file is named.
        """
        # Threads, not processes: Pillow works without the interpreter's lock, an error stays one line, and
        # nothing is forked beside a GPU. Two batches a worker are in progress, so that memory is bounded.
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="decode")
        ahead: deque[tuple[Future[Tensor], Tensor]] = deque()
        try:
            for chunk in torch.split(indices, batch_size):
                ahead.append((pool.submit(decode, self._paths(chunk), self.preprocessing), self.labels[chunk]))
                if len(ahead) == 2 * WORKERS:
                    images, labels = ahead.popleft()
                    yield images.result(), labels
            for images, labels in ahead:
                yield images.result(), labels
        finally:
            pool.shutdown(cancel_futures=True)

    def _paths(self, indices: Tensor) -> list[str]:
        return [self.paths[i] for i in indices.tolist()]


def resized(images: Tensor, preprocessing: Preprocessing | None) -> Tensor:
    """Bring images to a network's size, with antialiasing.

    Args:
        images: [N, C, h, w], uint8 or float.
        preprocessing: What the network takes. Without a `crop`, all of an image is seen. With None, images stay as
            they are.

    Returns:
        [N, C, H, W] of the same type.
    """
    if preprocessing is None:
        return images
    (height, width), crop = preprocessing.size, preprocessing.crop or 1.0
    whole = (round(height / crop), round(width / crop))
    if images.shape[-2:] != whole:
        images = F.interpolate(images, whole, mode=preprocessing.interpolation, antialias=True)
    top, left = (whole[0] - height) // 2, (whole[1] - width) // 2
    return images[..., top : top + height, left : left + width]


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Make RGB images of grey ones, or the other way round.

    Args:
        images: Uint8 [N, 3, h, w] or [N, 1, h, w].
        channels: 3 or 1.

    Returns:
        Uint8 [N, channels, h, w]. Grey is what it is for files, as Pillow computes it: 0.299 R + 0.587 G + 0.114 B,
        rounded. RGB of grey is a view, its three channels alike.
    """
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return torch.cat([_grey(chunk) for chunk in torch.split(images, 4096)])


def _grey(images: Tensor) -> Tensor:
    # The weights of Pillow: 0.299, 0.587 and 0.114 as fractions of 2 ** 16, and a half to round.
    red, green, blue = images.int().unbind(dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8)[:, None]
