"""How long passes take: measured times of whole passes, and what a pass costs where only some images get to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

# The share of images that get to a pass -> what that costs, as a mean over all images.
PassCost = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PassTimes:
    """Measured times of passes, each a dense graph.

    Attributes:
        machine: On which machine: its processor, and threads.
        runtime: In which runtime.
        batch: How many images come at once.
        ms: For each pass, the milliseconds that some numbers of images take; 1 and `batch` are among these.
    """

    machine: str
    runtime: str
    batch: int
    ms: tuple[Mapping[int, float], ...]

    def costs(self) -> list[PassCost]:
        """The cost of each pass by the share of images that get there, in milliseconds an image."""
        return [partial(self._mean, self._by_count(each)) for each in self.ms]

    def _by_count(self, ms: Mapping[int, float]) -> np.ndarray:
        """The milliseconds of 0, 1, ..., `batch` images: between measured numbers, on a straight line."""
        counts = sorted(ms)
        between = np.interp(np.arange(1, self.batch + 1), counts, [ms[count] for count in counts])
        return np.concatenate([[0.0], between])

    def _mean(self, by_count: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Which images get to a pass is independent in a batch: their number is binomial."""
        number = np.arange(self.batch + 1)
        share = np.atleast_1d(np.asarray(rate, dtype=float))[:, None]
        chance = binomials(self.batch) * share**number * (1 - share) ** (self.batch - number)
        return np.asarray(chance @ by_count / self.batch)


def binomials(count: int) -> np.ndarray:
    """The binomial coefficients of `count`: `[count + 1]`."""
    row = np.ones(count + 1)
    for k in range(1, count + 1):
        row[k] = row[k - 1] * (count - k + 1) / k
    return row


def multiply_adds(macs: float) -> PassCost:
    """What a pass costs that takes so many multiply-adds an image."""
    return lambda rate: macs * np.asarray(rate, dtype=float)
