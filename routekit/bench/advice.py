"""Which of several measured networks to ship."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routekit.evaluation.sequences import standard_error

# A time is met by what takes no more than this share longer: times differ by that from minute to minute.
NEAR = 0.02


@dataclass(frozen=True)
class Measured:
    """A network in a runtime and a precision.

    Attributes:
        name: Its name.
        right: `[N]`, bool, whether each validation image is answered rightly.
        ms: Milliseconds an image.
        reference: Whether it is the dense network in float32.
    """

    name: str
    right: np.ndarray
    ms: float
    reference: bool = False

    @property
    def accuracy(self) -> float:
        """The share of the images that are answered rightly."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Advice:
    """What to ship.

    Attributes:
        ship: The name of the network.
        best: That of the most accurate one with which it was compared.
        why: "drop": it is the fastest that loses no more than the run may. "time": of those that are fast enough, it is
            the fastest that is about as accurate as the best. "noise": the same of all.
        met: Whether the aim of the run is met; True where there is none.
    """

    ship: str
    best: str
    why: str
    met: bool = True


def advise(measured: Sequence[Measured], *, most_ms: float | None = None, most_drop: float | None = None) -> Advice:
    """Choose the fastest network that is as good as is wanted.

    About as accurate is what is at most one standard error (of paired differences on validation images) worse.

    Args:
        measured: The networks, one at least.
        most_ms: The milliseconds that the run is aimed at.
        most_drop: How many points of accuracy the run may lose against the dense network in float32.

    Returns:
        The advice. Where nothing meets the aim of the run, it is as without an aim.
    """
    if most_drop is not None:
        dense = max((each for each in measured if each.reference), key=lambda each: each.accuracy, default=None)
        if dense is not None:
            lost = round(most_drop / 100 * len(dense.right), 6)
            enough = [each for each in measured if int(dense.right.sum()) - int(each.right.sum()) <= lost]
            return Advice(_fastest(enough).name, dense.name, "drop")
    if most_ms is not None and (fast := [each for each in measured if each.ms <= (1 + NEAR) * most_ms]):
        return _among(fast, "time")
    return _among(measured, "noise", met=most_ms is None and most_drop is None)


def _among(measured: Sequence[Measured], why: str, *, met: bool = True) -> Advice:
    best = max(measured, key=lambda each: (each.accuracy, -each.ms))
    near = [each for each in measured if best.accuracy - each.accuracy <= standard_error(best.right, each.right)]
    return Advice(_fastest(near).name, best.name, why, met)


def _fastest(measured: Sequence[Measured]) -> Measured:
    return min(measured, key=lambda each: each.ms)
