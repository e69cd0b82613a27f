"""Meet a budget by k_cpt, the price of computing by which exits and forks learn (Eq. 2 of McGill and Perona)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController
from routekit.cost.table import CostTable


@dataclass
class ExitPriceController(BudgetController):
    """Adapts the price of computing, in units of an answer's error, until decisions cost what is wanted.

    The paper gives a price and accepts the cost that follows. Here, the price integrates the excess of each training
    batch over the wanted cost. It has no proportional term, unlike `CostWeightController`. Decisions follow a price
    slowly, by learning, so such a term would make the share of images that stop swing between all and none.

    Attributes:
        gain: By how much the price rises with each step and unit of excess.
        inertia: The weight of the past in the running mean of the batches' costs.
        follows: The weight of a new measurement in `ahead`.
        price: That of all of a network. It never falls below 0, so cost is never rewarded.
        ahead: By how much more held-out images cost than training batches.
        spent: The running mean of the batches' costs.
    """

    gain: float = 0.05
    inertia: float = 0.9
    follows: float = 0.1
    price: float = 0.0
    ahead: float = 0.0
    spent: float | None = None

    @torch.no_grad()
    def observe(
        self, bias: Tensor, margins: Tensor, costs: CostTable, step: int, gains: Tensor | None = None
    ) -> Tensor:
        """Integrate the excess of a batch into the price. The bias stays, because decisions are learned."""
        del gains
        cost = float(costs.of_routes(costs.layout.choose(margins)).mean()) / costs.dense
        self.spent = cost if self.spent is None else self.inertia * self.spent + (1 - self.inertia) * cost
        self.price = max(0.0, self.price + self.gain * (cost + self.ahead - self.wanted(step)))
        return bias

    def k_cpt(self, costs: CostTable) -> float:
        """Return the price in force of one unit of cost."""
        return self.price / costs.dense

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much more held-out images cost than training batches."""
        del step
        if self.spent is not None:
            self.ahead += self.follows * (realized - self.spent - self.ahead)
