"""What a data set is asked for and what it provides; those that go by a name are registered here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from routekit.data.image_set import Images
from routekit.data.preprocessing import Preprocessing
from routekit.registry import Registry


@dataclass(frozen=True)
class Request:
    """How to read a data set.

    data_root:           the folder of downloaded files, if there is one
    download:            whether to fetch what is missing
    preprocessing:       what the network takes
    limit_memory_bytes:  the most that decoded images may take
    """

    data_root: Path | None
    download: bool
    preprocessing: Preprocessing
    limit_memory_bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """The network's input size (H, W)."""
        return self.preprocessing.size

    def fits(self, count: int) -> bool:
        """Whether `count` images at the input size fit into the memory that is granted."""
        return self.preprocessing.channels * self.size[0] * self.size[1] * count < self.limit_memory_bytes


@dataclass(frozen=True)
class Provided:
    """A data set as it is.

    val:        None where it has none
    flip:       False where a mirror changes the class
    unflipped:  the classes of a set whose mirror it changes for these alone
    grey:       whether its images are greyscale: one channel, or three that are alike
    """

    train: Images
    test: Images
    val: Images | None = None
    flip: bool = True
    unflipped: tuple[int, ...] = ()
    grey: bool = False


named_sets: Registry[Callable[[Request], Provided]] = Registry("data set")
