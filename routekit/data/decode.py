"""Image files -> tensors at a network's input size."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from routekit.errors import InputError, first_line

LARGE = 96
"""From this input size (pixels) on, images are preprocessed and augmented as is usual for ImageNet."""

_KEPT = 0.875  # the usual evaluation crop: 224 of 256 pixels


def decode(paths: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Read image files as RGB: uint8 [N, 3, H, W], where `size` is (H, W).

    Raises InputError that names the first file that cannot be read.
    """
    # Filled as Pillow lays pixels out, and turned once: turning each image costs a good part of decoding it.
    pixels = np.empty((len(paths), *size, 3), dtype=np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = np.asarray(_read(path, size))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def decode_all(paths: Sequence[str], size: tuple[int, int], *, chunk: int = 256) -> Tensor:
    """`decode` for a whole set, `chunk` files at a time in as many threads as there are cores."""
    images = torch.empty((len(paths), 3, *size), dtype=torch.uint8)

    def fill(start: int) -> None:
        images[start : start + chunk] = decode(paths[start : start + chunk], size)

    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
    try:
        for _ in pool.map(fill, range(0, len(paths), chunk)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _read(path: str, size: tuple[int, int]) -> Image.Image:
    try:
        with Image.open(path) as image:
            return fit(image.convert("RGB"), size)
    # What Pillow raises, depending on the format and on where a file is broken.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = first_line(error)
        raise InputError(f"cannot read the image {path} ({reason}): repair or remove it") from error


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bring an image to `size` (H, W): its centre, resized bilinearly with antialiasing.

    The centre is the largest box of the wanted shape; for inputs of 96 pixels and more 0.875 of that, usual for
    ImageNet. An image that has the size already is left alone.
    """
    height, width = size
    if image.size == (width, height):
        return image
    kept = _KEPT if min(size) >= LARGE else 1.0
    scale = kept * min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    # Rounding may put an edge of the box a hair outside, which Pillow refuses.
    box = (
        max(0.0, left),
        max(0.0, top),
        min(image.width, image.width - left),
        min(image.height, image.height - top),
    )
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
