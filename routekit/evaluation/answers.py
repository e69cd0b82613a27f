"""Which images were answered right, as text, so that records can be compared image by image."""

from base64 import b64decode, b64encode

import numpy as np
import torch
from torch import Tensor


def pack(correct: Tensor) -> str:
    """`[N]`, bool -> base64 of one bit for each image. The first image is the highest bit of the first byte."""
    return b64encode(np.packbits(correct.cpu().numpy()).tobytes()).decode("ascii")


def unpack(text: str, images: int) -> Tensor:
    """Read what `pack` wrote.

    Args:
        text: The text.
        images: N, the number of images.

    Returns:
        `[N]`, bool.

    Raises:
        ValueError: The text is of another number of images.
    """
    found = np.frombuffer(b64decode(text, validate=True), dtype=np.uint8)
    if len(found) != -(-images // 8):
        raise ValueError(f"{8 * len(found)} bits are not of {images} images")
    return torch.from_numpy(np.unpackbits(found, count=images).astype(bool))
