"""Which images were answered right, as text: so that a record can be compared with another, image by image."""

from base64 import b64decode, b64encode

import numpy as np
import torch
from torch import Tensor


def pack(correct: Tensor) -> str:
    """[N] bool -> base64 of a bit an image, the first image in the highest bit of the first byte."""
    return b64encode(np.packbits(correct.cpu().numpy()).tobytes()).decode("ascii")


def unpack(text: str, images: int) -> Tensor:
    """Read what `pack` wrote of [N] images, as bools. Raises ValueError for text of another number of them."""
    found = np.frombuffer(b64decode(text, validate=True), dtype=np.uint8)
    if len(found) != -(-images // 8):
        raise ValueError(f"{8 * len(found)} bits are not of {images} images")
    return torch.from_numpy(np.unpackbits(found, count=images).astype(bool))
