"""Meters: the unit of a cost, and how a piece of a network is measured in it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from routekit.macs import count


@dataclass(frozen=True)
class Meter:
    """Measures pieces of a network.

    Attributes:
        unit: The name of its unit.
        measure: A callable, its inputs, and a module that contains all parameters that it uses -> the cost of the call,
            and the operators that the meter cannot count, whose cost is taken as 0.
    """

    unit: str
    measure: Callable[[Callable[..., Any], tuple[Any, ...], nn.Module], tuple[float, Counter[str]]]


def multiply_adds(call: Callable[..., Any], inputs: tuple[Any, ...], owner: nn.Module) -> tuple[float, Counter[str]]:
    """Count multiply-adds with fvcore: one is one FLOP.

    Args:
        call: A piece of a network.
        inputs: Its inputs.
        owner: A module that contains all parameters that it uses.

    Returns:
        The multiply-adds, and the operators that fvcore cannot count.
    """
    found = count(call, inputs, owner)
    return found.flops, found.uncounted


MACS = Meter("MACs", multiply_adds)
