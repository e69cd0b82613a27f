"""One network for every budget: the price of computing as a knob (McGill and Perona, section 4.6)."""

import math
from typing import TypeVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.errors import InputError

Price = TypeVar("Price", float, Tensor)

# The unit of a price: k_cpt is given "in units of cost per ten-million operations".
OPERATIONS = 1e7


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class DialRange:
    """Between which prices a network learns to decide, in units of the loss per ten million multiply-adds."""

    low: float = 0.01
    high: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for a range that is none."""
        if not 0 < self.low < self.high:
            raise ValueError("a range of prices goes from a low one over 0 to a higher one")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw prices [count], log-uniformly."""
        share = torch.rand(count, generator=generator)
        return (math.log(self.low) + share * math.log(self.high / self.low)).exp()


class Dial(nn.Module):
    """The price at which a network decides, and what it means for its units.

    k_cpt:    the price in force, as in `DialRange`
    surplus:  [columns] what each way through each unit costs, in ten million multiply-adds over the default
    """

    k_cpt: Tensor
    surplus: Tensor

    def __init__(self, columns: int, range_: DialRange) -> None:
        super().__init__()
        self.range = range_
        self.register_buffer("k_cpt", torch.tensor(0.0))
        self.register_buffer("surplus", torch.zeros(columns))

    def told(self, k_cpt: Price) -> Price:
        """What routers are told of a price: its share of the highest. They begin alike whatever networks cost."""
        return k_cpt / self.range.high

    def forget(self, columns: slice) -> None:
        """Forget a unit, in which there is nothing to decide any more."""
        self.surplus = torch.cat([self.surplus[: columns.start], self.surplus[columns.stop :]])

    def check(self, k_cpt: float) -> None:
        """Raise InputError for a price that the network has not learned."""
        if not self.range.low <= k_cpt <= self.range.high:
            raise InputError(
                f"a price of {k_cpt:g} was not learned: this network knows {self.range.low:g} to {self.range.high:g}, "
                "in units of the loss per ten million multiply-adds"
            )
