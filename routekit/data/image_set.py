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
        """Yield (uint8 images [B, 3, H, W], int64 labels [B]) in the order of `indices`.

        Images have the network's input size; the last batch holds what is left.
        """


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images held in memory: uint8 [N, 3, h, w].

    `size` (height, width) is for a set that is small only at its own size: each batch is resized to it.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "images"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.images.dtype != torch.uint8 or self.images.shape[:2] != (n, 3) or self.images.dim() != 4:
            got = f"{str(self.images.dtype).removeprefix('torch.')} {list(self.images.shape)}"
            raise ValueError(f"an image set takes uint8 images [{n}, 3, H, W] for its {n} labels, not {got}")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order; a copy."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Yield (uint8 images [B, 3, H, W], int64 labels [B]) in the order of `indices`."""
        for chunk in torch.split(indices, batch_size):
            yield resized(self.images[chunk], self.size), self.labels[chunk]


@dataclass(frozen=True, eq=False)
class FolderSet:
    """Images too many for memory: decoded from their files when a batch asks for them.

    paths:        N image files
    size:         (height, width) that every image is decoded to
    num_workers:  threads that decode ahead; 0 decodes in the caller's thread
    """

    paths: list[str]
    labels: Tensor
    classes: tuple[str, ...]
    size: tuple[int, int]
    name: str = "images"
    num_workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` [M], in that order; nothing is decoded."""
        return replace(self, paths=[self.paths[i] for i in indices.tolist()], labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Yield (uint8 images [B, 3, H, W], int64 labels [B]) in the order of `indices`.

        Raises InputError that names the file if an image cannot be read.
        """
        chunks = torch.split(indices, batch_size)
        if self.num_workers == 0:
            for chunk in chunks:
                yield decode(self._paths(chunk), self.size), self.labels[chunk]
            return
        # Threads, not processes: Pillow works without the interpreter's lock, an error stays one line, and
        # nothing is forked beside a GPU. Two batches a worker are under way, so that memory is bounded.
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="decode")
        try:
            ahead = deque(pool.submit(decode, self._paths(c), self.size) for c in chunks[: 2 * self.num_workers])
            for number, chunk in enumerate(chunks):
                images = ahead.popleft().result()
                if number + 2 * self.num_workers < len(chunks):
                    upcoming = chunks[number + 2 * self.num_workers]
                    ahead.append(pool.submit(decode, self._paths(upcoming), self.size))
                yield images, self.labels[chunk]
        finally:
            pool.shutdown(cancel_futures=True)

    def _paths(self, indices: Tensor) -> list[str]:
        return [self.paths[i] for i in indices.tolist()]


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Uint8 images [N, 3, h, w] -> [N, 3, *size], bilinear and antialiased; None leaves them as they are."""
    if size is None or images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)
