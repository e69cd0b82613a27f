"""What a data set is read by and what it provides. Those that have a name are registered here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from routekit.data.image_set import Images
from routekit.data.preprocessing import Preprocessing
from routekit.registry import Registry


@dataclass(frozen=True)
class Request:
    """How to read a data set.

    Attributes:
        data_root: The folder of downloaded files, if there is one.
        download: Whether to fetch what is missing.
        preprocessing: What the network takes.
        limit_memory_bytes: Decoded images must take less than this.
    """

    data_root: Path | None
    download: bool
    preprocessing: Preprocessing
    limit_memory_bytes: int

    def fits(self, count: int) -> bool:
        """Whether `count` images at the input size fit into memory."""
        height, width = self.preprocessing.size
        return self.preprocessing.channels * height * width * count < self.limit_memory_bytes


@dataclass(frozen=True)
class Provided:
    """A data set as it is.

    Attributes:
        train: The training images.
        test: The test images.
        val: The validation images; None where it has none.
        flip: False where the mirror image of a sample is of another class.
        unflipped: Labels of the classes for which alone that is so.
        grey: Whether its images are greyscale: one channel, or three that are alike.
    """

    train: Images
    test: Images
    val: Images | None = None
    flip: bool = True
    unflipped: tuple[int, ...] = ()
    grey: bool = False


named_sets: Registry[Callable[[Request], Provided]] = Registry("data set")
