"""Meters: in which unit a cost is, and how a piece of a network is measured in it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from routekit.macs import CONVENTION, count, describe


@dataclass(frozen=True)
class Measured:
    """The cost of one call, and the operators that the meter cannot count (it takes them as free)."""

    cost: float
    uncounted: Counter[str]


class Meter(Protocol):
    """Measures pieces of a network.

    Attributes:
        unit: The name of its unit.
        convention: How it counts, in a few words.
    """

    unit: str
    convention: str

    def measure(self, call: Callable[..., Any], inputs: tuple[Any, ...], owner: nn.Module) -> Measured:
        """Measure `call(*inputs)`; `owner` is the module whose parameters it uses."""

    def describe(self, cost: float) -> str:
        """Say a cost with its unit."""


class MultiplyAdds:
    """Counts multiply-adds with fvcore: one is one FLOP."""

    unit = "MACs"
    convention = CONVENTION

    def measure(self, call: Callable[..., Any], inputs: tuple[Any, ...], owner: nn.Module) -> Measured:
        """Count `call(*inputs)`."""
        found = count(call, inputs, owner)
        return Measured(found.flops, found.uncounted)

    def describe(self, cost: float) -> str:
        """Say a cost with its convention, and the 2x figure beside it."""
        return describe(cost)


MACS: Meter = MultiplyAdds()
