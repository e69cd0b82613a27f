"""Labelled images, in memory or in files; what uses them does not care which."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.data.decode import decode
from routekit.data.preprocessing import Preprocessing

Batches = Iterator[tuple[Tensor, Tensor]]


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
        """Yield (uint8 images [B, C, H, W], int64 labels [B]) in the order of `indices`.

        Images have the network's input size; the last batch holds what is left.
        """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images held in memory: uint8 [N, 3, h, w], or [N, 1, h, w] for grey ones.

    `preprocessing` is for a set that is small only at its own size: each batch is resized as it says.
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
        """Yield (uint8 images [B, C, H, W], int64 labels [B]) in the order of `indices`."""
        for chunk in torch.split(indices, batch_size):
            yield resized(self.images[chunk], self.preprocessing), self.labels[chunk]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Images too many for memory: decoded from their files when a batch asks for them.

    paths:          N image files
    preprocessing:  how every image is decoded
    num_workers:    threads that decode ahead; 0 decodes in the caller's thread
    """

    paths: list[str]
    labels: Tensor
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    name: str = "images"
    num_workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order; nothing is decoded."""
        return replace(self, paths=[self.paths[i] for i in indices.tolist()], labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Yield (uint8 images [B, C, H, W], int64 labels [B]) in the order of `indices`.

        Raises InputError that names the file if an image cannot be read.
        """
        chunks = torch.split(indices, batch_size)
        if self.num_workers == 0:
            for chunk in chunks:
                yield decode(self._paths(chunk), self.preprocessing), self.labels[chunk]
            return
        # Threads, not processes: Pillow works without the interpreter's lock, an error stays one line, and
        # nothing is forked beside a GPU. Two batches a worker are under way, so that memory is bounded.
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="decode")
        try:
            ahead = deque(
                pool.submit(decode, self._paths(c), self.preprocessing) for c in chunks[: 2 * self.num_workers]
            )
            for number, chunk in enumerate(chunks):
                images = ahead.popleft().result()
                if number + 2 * self.num_workers < len(chunks):
                    upcoming = chunks[number + 2 * self.num_workers]
                    ahead.append(pool.submit(decode, self._paths(upcoming), self.preprocessing))
                yield images, self.labels[chunk]
        finally:
            pool.shutdown(cancel_futures=True)

    def _paths(self, indices: Tensor) -> list[str]:
        return [self.paths[i] for i in indices.tolist()]


def resized(images: Tensor, preprocessing: Preprocessing | None) -> Tensor:
    """Bring images to a network's size, with antialiasing.

    Args:
        images: [N, C, h, w], uint8 or float.
        preprocessing: What the network takes; all of an image is seen unless its `crop` says less. None leaves the
            images as they are.

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
    # Pillow's weights: 0.299, 0.587 and 0.114 as fractions of 2 ** 16, and a half to round.
    red, green, blue = images.int().unbind(dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8)[:, None]
