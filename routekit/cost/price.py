"""Meet a budget by a price: the threshold on what routers predict at which the wanted cost is spent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.budget import Budget
from routekit.cost.model import CostModel


def price_for(margins: Tensor, costs: CostModel, wanted: float) -> float:
    """Find the margin at which a unit should just run, for the mean cost of a batch to be `wanted` MACs.

    `margins` [B, n] is by how much each router prefers to run. The pairs of image and unit with the largest margins
    run until the budget is spent; the price is the margin of the last one that does.
    """
    extra = costs.surplus.to(margins.device, torch.float64).expand(margins.shape).flatten()
    budget = (wanted - costs.minimum) * len(margins)
    ranked, order = margins.flatten().sort(descending=True)
    affordable = int((extra[order].cumsum(0) <= budget).sum())
    return float(ranked[max(0, affordable - 1)])


@dataclass
class Price(Budget):
    """Follows the price that the wanted cost asks for, for routers that predict benefits.

    The routers' own predictions say which price spends the wanted cost on a training batch; held-out images cost
    something else at that price, and `trim` learns how much.

    congestion: how much dearer a unit is that every image runs than one that none runs, in standard deviations of the
               margins: without it, the units that run often learn the most and routes end as one
    inertia:   how slowly the price follows from batch to batch
    integral:  how much of an excess on held-out images goes into `trim`
    trim:      what is taken off the wanted cost, because held-out images came out dearer
    rates:     [n] running mean of the run rates
    """

    congestion: float = 0.0
    inertia: float = 0.9
    integral: float = 0.1
    trim: float = 0.0
    rates: Tensor | None = None

    @torch.no_grad()
    def follow(self, offset: Tensor, margins: Tensor, costs: CostModel, step: int) -> None:
        """Move `offset` towards the price of the wanted cost: a unit runs where its margin exceeds 0 after it."""
        rates = (margins >= 0).to(margins).mean(dim=0)
        self.rates = rates if self.rates is None else self.rates.to(rates).lerp(rates, 1 - self.inertia)
        free = margins - offset
        premium = self.congestion * free.std() * (self.rates - 0.5)
        price = price_for(free - premium, costs, (self.wanted(step) - self.trim) * costs.dense)
        offset.lerp_(-(price + premium), 1 - self.inertia)

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed the wanted cost."""
        self.trim += self.integral * (realized - self.wanted(step))
