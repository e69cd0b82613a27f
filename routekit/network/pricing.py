"""One network for every budget: the price of computing as a knob (McGill and Perona, section 4.6)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.errors import InputError

AUTO: Literal["auto"] = "auto"

# The unit of a price: k_cpt is given "in units of cost per ten-million operations".
OPERATIONS = 1e7
# What computing all of a network may cost, in units of the loss, for decisions to be worth learning: nearly all pays at
# the lowest price, nearly nothing at the highest. The prices in the authors' code, 1e-9 to 6.4e-8 an operation, make
# 0.02 to 1.3 for their network of 20.5 million; there is a price of 0, too.
WORTHWHILE = (0.02, 2.0)

Bound = Annotated[float, Field(gt=0)] | Literal["auto"]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class PriceRange:
    """The prices of computing at which a network learns to decide, in units of the loss per ten million multiply-adds.

    "auto" goes by the network's cost: all of it costs 0.02 to 2 units of the loss, if the loss is cross-entropy. What
    units are worth is not known before training: where they alone decide, training finds both bounds.

    Attributes:
        low: The lowest price.
        high: The highest price.
    """

    low: Bound = AUTO
    high: Bound = AUTO

    def __post_init__(self) -> None:
        """Raise ValueError for a range that is none."""
        if self.low != AUTO and self.high != AUTO and not self.lowest < self.highest:
            raise ValueError("a range of prices goes from a low one to a higher one")

    def sized(self, dense: float, loss: float = 1.0) -> "PriceRange":
        """Return the range with its open bounds set for a network.

        Args:
            dense: The network's cost, multiply-adds.
            loss: How much larger errors are than in cross-entropy (`ObjectiveWeights.error_scale`).

        Returns:
            The range with both bounds.

        Raises:
            InputError: The bounds are no range.
        """
        fitting = (price * loss * OPERATIONS / dense for price in WORTHWHILE)
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

    @property
    def is_open(self) -> bool:
        """Whether both bounds are left open."""
        return self.low == self.high == AUTO

    def draw(self, count: int, generator: torch.Generator, dearest: float = 0.0) -> Tensor:
        """Draw prices, log-uniformly.

        Args:
            count: How many.
            generator: Draws them.
            dearest: The share of the prices, the first ones, that are the highest.

        Returns:
            `[count]`.
        """
        share = torch.rand(count, generator=generator)
        share[: round(dearest * count)] = 1.0
        return (math.log(self.lowest) + share * math.log(self.highest / self.lowest)).exp()


class PriceConditioning(nn.Module):
    """One network for every budget: the price of computing is a feature of what decides.

    Attributes:
        range: The prices that the network learns. With `finds`, training begins with them and finds its own.
        k_cpt: The price in force, as in `PriceRange`.
        extra_cost: `[columns]`, what each sink of each unit costs over the default, in ten million multiply-adds.
    """

    k_cpt: Tensor
    extra_cost: Tensor

    def __init__(self, columns: int, range_: PriceRange, *, finds: bool = False) -> None:
        super().__init__()
        self.range, self.finds = range_, finds
        self.register_buffer("k_cpt", torch.tensor(0.0))
        self.register_buffer("extra_cost", torch.zeros(columns))

    def feature(self, k_cpt: Tensor) -> Tensor:
        """Return what routers get of prices: their logarithms, standardised over the range, as other inputs are."""
        low, high = math.log(self.range.lowest), math.log(self.range.highest)
        deviation = (high - low) / math.sqrt(12)  # of a uniform distribution
        return (k_cpt.clamp_min(self.range.lowest).log() - (low + high) / 2) / deviation

    def forget(self, columns: slice) -> None:
        """Forget a unit about which nothing is decided any more."""
        self.extra_cost = torch.cat([self.extra_cost[: columns.start], self.extra_cost[columns.stop :]])

    @torch.no_grad()
    def set(self, k_cpt: float, biases: Sequence[Tensor], features: Sequence[Tensor]) -> None:
        """Decide at another price.

        Args:
            k_cpt: The price.
            biases: Those of the routers, which follow from it.
            features: The price as a feature, of all that gets it.

        Raises:
            InputError: The network has not learned this price.
        """
        if not self.range.lowest <= k_cpt <= self.range.highest:
            raise InputError(
                f"a price of {k_cpt:g} was not learned: this network knows {self.range.lowest:g} to "
                f"{self.range.highest:g}, in units of the loss per ten million multiply-adds"
            )
        self.k_cpt.fill_(k_cpt)
        for bias in biases:
            bias.copy_(-k_cpt * self.extra_cost)
        for feature in features:
            feature.copy_(self.feature(self.k_cpt))
