"""Meet a budget by the price of computing by which exits and forks learn: the k_cpt of McGill and Perona (Eq. 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController
from routekit.cost.table import CostTable


@dataclass
class ExitPriceController(BudgetController):
    """Adapts the price of all of a network, in units of an answer's error, until what is decided costs what is wanted.

    The paper gives a price, and takes the cost that comes of it. Here, the price integrates by how much each training
    batch exceeds the wanted cost. It does not answer an excess at once, as a `CostWeightController`
    does: what is decided follows a price only as fast as it is learned, and would swing from where all images stop to
    where none does.

    Attributes:
        gain: By how much the price rises with each step and unit of excess.
        inertia: How slowly the running mean of the batches' costs follows.
        follows: How fast `ahead` follows what is measured.
        price: Of all of the network. It never falls below 0: cost is never rewarded.
        ahead: By how much more held-out images cost than training batches do.
        spent: The running mean of what the batches cost.
    """

    gain: float = 0.05
    inertia: float = 0.9
    follows: float = 0.1
    price: float = 0.0
    ahead: float = 0.0
    spent: float | None = None

    @torch.no_grad()
    def observe(
        self,
        bias: Tensor,
        margins: Tensor,
        costs: CostTable,
        step: int,
        gains: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Move the price by what a batch costs; the bias stays: what exits have learned to decide is taken as it is."""
        cost = float(costs.of_routes(costs.layout.choose(margins)).mean()) / costs.dense
        self.spent = cost if self.spent is None else self.inertia * self.spent + (1 - self.inertia) * cost
        self.price = max(0.0, self.price + self.gain * (cost + self.ahead - self.wanted(step)))
        return bias

    def k_cpt(self, costs: CostTable) -> float:
        """The price in force of one multiply-add."""
        return self.price / costs.dense

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed training batches."""
        del step
        if self.spent is not None:
            self.ahead += self.follows * (realized - self.spent - self.ahead)
