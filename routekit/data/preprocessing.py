"""How images become what a network takes: a part of the network's specification."""

from dataclasses import dataclass
from typing import Literal

from routekit.errors import InputError

LARGE = 96
"""From this input size (pixels) on, images are preprocessed and augmented as is usual for ImageNet."""

_KEPT = 0.875  # the usual evaluation crop: 224 of 256 pixels

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """How images are read.

    Attributes:
        size: (height, width) of what the network takes.
        channels: 3 for RGB, 1 for grey.
        crop: The share of an image's centre that is seen. None for what is usual: of files, 0.875 from 96 pixels on,
            else all of it; of sets that are held as arrays, all of it.
        interpolation: How images are resized, with antialiasing.
    """

    size: tuple[int, int]
    channels: int = 3
    crop: float | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(
                f"images are read with 3 channels (RGB) or 1 (grey), but the network takes {self.channels}: "
                "put a layer in front of it that makes its channels of those"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(f"crop is a share of the image, above 0 and up to 1, not {self.crop:.4g}")

    @property
    def kept(self) -> float:
        """The share of the centre of a file's image that is seen."""
        if self.crop is not None:
            return self.crop
        return _KEPT if min(self.size) >= LARGE else 1.0


DEFAULT = Preprocessing((32, 32))
"""What the CIFAR networks take."""
