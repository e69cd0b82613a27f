"""What whole passes cost: multiply-adds, or measured milliseconds, by the share of images that get there."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

# The share of images that get to a pass, [K] -> what the pass costs, as a mean over all images, [K].
PassCost = Callable[[np.ndarray], np.ndarray]

# For how many shares the mean over numbers of images is computed; between them, it is a straight line.
GRID = 2001


def multiply_adds(macs: float) -> PassCost:
    """The cost of a pass that takes so many multiply-adds an image."""
    return lambda rate: macs * np.asarray(rate, dtype=float)


def milliseconds(ms: Mapping[int, float], batch: int) -> PassCost:
    """The cost of a pass in milliseconds an image.

    Which images of a batch get to the pass is taken as independent: their number is binomial.

    Args:
        ms: The milliseconds that some numbers of images take, 1 and `batch` among them.
        batch: How many images come at once.

    Returns:
        The cost by the share of images that get there.
    """
    counts = sorted(ms)
    # Between measured numbers, on a straight line.
    taken = np.interp(np.arange(batch + 1), counts, [ms[count] for count in counts])
    taken[0] = 0.0
    number, share = np.arange(batch + 1), np.linspace(0, 1, GRID)[:, None]
    mean = (binomials(batch) * share**number * (1 - share) ** (batch - number)) @ taken / batch
    return lambda rate: np.interp(rate, share[:, 0], mean)


def counts_of(batch: int) -> Sequence[int]:
    """The numbers of images for which passes are timed: 1, 2, 4, ... and the batch."""
    return sorted({2**power for power in range(batch.bit_length())} | {batch})


def binomials(count: int) -> np.ndarray:
    """The binomial coefficients of `count`: `[count + 1]`."""
    row = np.ones(count + 1)
    for k in range(1, count + 1):
        row[k] = row[k - 1] * (count - k + 1) / k
    return row
