"""Image files -> tensors as a network takes them."""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from routekit.data.preprocessing import Preprocessing
from routekit.errors import InputError, first_line

_MODES = {1: "L", 3: "RGB"}
# What files are read as, whatever they are called. Pillow knows more; for some it starts other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


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
    """Decode a whole set, in as many threads as there are cores.

    Args:
        paths: N files.
        preprocessing: What the network takes.
        chunk: How many files a thread decodes at a time.

    Returns:
        Uint8 [N, C, H, W].

    Raises:
        InputError: A file cannot be read.
    """
    images = torch.empty((len(paths), preprocessing.channels, *preprocessing.size), dtype=torch.uint8)

    def fill(start: int) -> None:
        images[start : start + chunk] = decode(paths[start : start + chunk], preprocessing)

    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        list(pool.map(fill, range(0, len(paths), chunk)))  # the first error cancels what has not begun
    return images


def _read(path: str, preprocessing: Preprocessing) -> Image.Image:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for somebody to write to it
            raise InputError(f"cannot read the image {path}: it is no regular file")
        # Opened here: where nothing can be read of a file, Pillow leaves it open.
        with Path(path).open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            return fit(_eight_bits(image, path).convert(_MODES[preprocessing.channels]), preprocessing)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read the image {path} (no {', '.join(FORMATS)}): repair or remove it") from error
    except (Exception, MemoryError) as error:  # what Pillow raises hangs on the format and on where a file is broken
        raise InputError(f"cannot read the image {path} ({first_line(error)}): repair or remove it") from error


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    """Scale 16 bits to 8, which Pillow would cut off. Raises InputError for 32 bits, whose range nothing says."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputError(
            f"cannot read the image {path}: its pixels have 32 bits ({image.mode}), and nothing says what is white; "
            "save it with 8 or 16 bits"
        )
    return image


def fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Bring the centre of an image to the network's size, with antialiasing.

    An image that has this size already stays as it is, unless `preprocessing.crop` is a smaller share.

    Args:
        image: Of any size.
        preprocessing: What the network takes. Of the largest box of its shape, it sees the share `kept`.

    Returns:
        The image at the network's size.
    """
    height, width = preprocessing.size
    if image.size == (width, height) and preprocessing.crop in (None, 1.0):
        return image
    scale = preprocessing.kept * min(image.width / width, image.height / height)
    # Rounding may put an edge of the box a hair outside, which Pillow refuses.
    left, top = max(0.0, (image.width - scale * width) / 2), max(0.0, (image.height - scale * height) / 2)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()], box=box)
