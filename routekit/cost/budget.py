"""The budget: what the user asks for, and what steers the realised cost to it."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from routekit.cost.model import CostModel
from routekit.errors import InputError
from routekit.macs import CONVENTION, describe

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def parse_amount(text: str, dense: float) -> float:
    """`1.5e8`, `150M`, `0.15G` or `60%` (of `dense` MACs) -> MACs. Raises InputError if it is no such number."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmg%]?)\s*", text, flags=re.IGNORECASE)
    try:
        number = float(match.group(1)) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise InputError(f"target {text!r} is no cost: write 1.5e8, 150M or 60% ({CONVENTION})")
    suffix = match.group(2).upper()
    return number / 100 * dense if suffix == "%" else number * _SUFFIX[suffix]


def parse_target(text: str, cost: CostModel, dense: float | None = None) -> float:
    """`1.5e8`, `150M`, `0.15G` or `60%` (of the dense cost) -> MACs.

    `dense` is what the dense network costs, if not all of it is in what is routed: it was pruned, or compacted.
    Raises InputError if it is no such number, or under the reachable minimum or over the cost without routing.
    """
    whole = dense or cost.dense
    target = parse_amount(text, whole)
    if not cost.minimum <= target <= cost.dense:
        raise InputError(
            f"target {text} = {describe(target)} is out of reach: this network can cost from {describe(cost.minimum)}, "
            f"by its cheapest route, to {describe(cost.dense)}, by its dearest "
            f"({math.ceil(100 * cost.minimum / whole)}% to {math.floor(100 * cost.dense / whole)}%)"
        )
    return target


@dataclass
class Budget:
    """Steers the realised cost along a wanted cost that falls to the target. All costs are fractions of the dense one.

    Subclasses steer by the weight of the cost in the objective (`weight.py`) or by a price for running (`price.py`).

    target:       the budget
    anneal_steps: steps over which the wanted cost falls from the dense cost to the target
    """

    target: float
    anneal_steps: int

    def wanted(self, step: int) -> float:
        """The cost wanted at `step`: a straight line from 1 to the target."""
        done = min(1.0, step / self.anneal_steps) if self.anneal_steps > 0 else 1.0
        return 1.0 + (self.target - 1.0) * done

    @property
    def cost_weight(self) -> float:
        """The weight in force of the cost in the objective."""
        return 0.0

    def k_cpt(self, costs: CostModel) -> float:
        """The price in force of one multiply-add, in units of the loss (Eq. 2 of McGill and Perona)."""
        return self.cost_weight / costs.dense

    def stakes(self, costs: CostModel) -> Tensor:
        """How a price per unit is shared out over units and exits: `CostModel.stakes`, in this budget's prices."""
        return costs.stakes

    def follow(
        self,
        offset: Tensor,
        margins: Tensor,  # noqa: ARG002
        costs: CostModel,  # noqa: ARG002
        step: int,  # noqa: ARG002
        gains: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """The routers' next `offset` [n], after a training batch that had `margins` [B, n] under this one.

        `gains` [exits] is by how much the batch's mean error falls from each exit to the end of the network.
        """
        return offset

    def correct(self, realized: float, step: int) -> None:
        """Take in the realised cost of held-out images at `step`."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: the fields, to build the budget from again."""
        return asdict(self)


class Unsteered(Budget):
    """For a network that learns at given prices: the one that meets the budget is found afterwards, by its dial."""

    def correct(self, realized: float, step: int) -> None:
        """Leave everything as it is."""
