"""One network for every budget: the price of computing as a knob (McGill and Perona, section 4.6)."""

import math
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.errors import InputError
from routekit.network.branches import AUTO

Price = TypeVar("Price", float, Tensor)

# The unit of a price: k_cpt is given "in units of cost per ten-million operations".
OPERATIONS = 1e7
# The prices of computing all of a network, in units of the loss, between which decisions are worth learning: at the
# lowest nearly all is worth it, at the highest nearly nothing.
WORTHWHILE = (0.1, 10.0)

Bound = Annotated[float, Field(gt=0)] | Literal["auto"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class DialRange:
    """Between which prices a network learns to decide, in units of the loss per ten million multiply-adds.

    "auto" goes by what the network costs: all of it costs 0.1 to 10 units of the loss.
    """

    low: Bound = AUTO
    high: Bound = AUTO

    def __post_init__(self) -> None:
        """Raise ValueError for a range that is none."""
        if self.low != AUTO and self.high != AUTO and not self.lowest < self.highest:
            raise ValueError("a range of prices goes from a low one to a higher one")

    def sized(self, dense: float) -> "DialRange":
        """The same for a network of `dense` multiply-adds, where it is left open. Raises InputError if it is none."""
        fitting = (price * OPERATIONS / dense for price in WORTHWHILE)
        low, high = (fit if bound == AUTO else bound for fit, bound in zip(fitting, (self.low, self.high), strict=True))
        try:
            return replace(self, low=low, high=high)
        except ValueError:
            raise InputError(
                f"prices of computing from {low:g} to {high:g} are no range: give both adaptive_cost.low and .high"
            ) from None

    @property
    def lowest(self) -> float:
        """The lowest price, once it is known."""
        return float(self.low)

    @property
    def highest(self) -> float:
        """The highest price, once it is known."""
        return float(self.high)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw prices [count], log-uniformly."""
        share = torch.rand(count, generator=generator)
        return (math.log(self.lowest) + share * math.log(self.highest / self.lowest)).exp()


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
        return k_cpt / self.range.highest

    def forget(self, columns: slice) -> None:
        """Forget a unit, in which there is nothing to decide any more."""
        self.surplus = torch.cat([self.surplus[: columns.start], self.surplus[columns.stop :]])

    def check(self, k_cpt: float) -> None:
        """Raise InputError for a price that the network has not learned."""
        if not self.range.lowest <= k_cpt <= self.range.highest:
            raise InputError(
                f"a price of {k_cpt:g} was not learned: this network knows {self.range.lowest:g} to "
                f"{self.range.highest:g}, "
                "in units of the loss per ten million multiply-adds"
            )
