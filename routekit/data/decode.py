"""Image files -> tensors as a network takes them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from routekit.data.preprocessing import Preprocessing
from routekit.errors import InputError, first_line

_MODES = {1: "L", 3: "RGB"}
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(paths: Sequence[str], preprocessing: Preprocessing) -> Tensor:
    """Read image files, as RGB or grey.

    Args:
        paths: N files.
        preprocessing: What the network takes.

    Returns:
        Uint8 [N, C, H, W].

    Raises:
        InputError: A file cannot be read; the first such is named.
    """
    shape = (*preprocessing.size, preprocessing.channels)
    # Filled as Pillow lays pixels out, and turned once: turning each image costs a good part of decoding it.
    pixels = np.empty((len(paths), *shape), dtype=np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = np.asarray(_read(path, preprocessing)).reshape(shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def decode_all(paths: Sequence[str], preprocessing: Preprocessing, *, chunk: int = 256) -> Tensor:
    """`decode` for a whole set, `chunk` files at a time in as many threads as there are cores."""
    images = torch.empty((len(paths), preprocessing.channels, *preprocessing.size), dtype=torch.uint8)

    def fill(start: int) -> None:
        images[start : start + chunk] = decode(paths[start : start + chunk], preprocessing)

    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
    try:
        for _ in pool.map(fill, range(0, len(paths), chunk)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _read(path: str, preprocessing: Preprocessing) -> Image.Image:
    try:
        with Image.open(path) as image:
            return fit(image.convert(_MODES[preprocessing.channels]), preprocessing)
    # What Pillow raises, depending on the format and on where a file is broken.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = first_line(error)
        raise InputError(f"cannot read the image {path} ({reason}): repair or remove it") from error


def fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring an image to the network's size: its centre, resized with antialiasing.

    The centre is the wanted share of the largest box of the wanted shape. An image that has the size already is left
    alone, unless a smaller share is asked for.
    """
    height, width = preprocessing.size
    if image.size == (width, height) and preprocessing.crop in (None, 1.0):
        return image
    scale = preprocessing.kept * min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    # Rounding may put an edge of the box a hair outside, which Pillow refuses.
    box = (
        max(0.0, left),
        max(0.0, top),
        min(image.width, image.width - left),
        min(image.height, image.height - top),
    )
    return image.resize((width, height), _FILTERS[preprocessing.interpolation], box=box)
