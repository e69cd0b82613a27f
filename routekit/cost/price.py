"""Meet a budget by a price: the threshold on what routers predict at which the wanted cost is spent."""

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController
from routekit.cost.table import CostTable

# Of what the target saves, a network that decides at several prices saves this much at its lowest one. At its highest
# it saves this much of what the target leaves: the last phase changes what prices come to, and the target is to stay
# within.
LEEWAY = 0.05


def price_for(margins: Tensor, costs: CostTable, wanted: float, *, cost_share: Tensor | None = None) -> float:
    """Find the price of running a unit at which the mean cost of a batch is `wanted`, or little below.

    What is worth its price is done. The price of going on past a stop is that of the units behind it. The price lies
    half-way between two prices at which somebody would decide otherwise: no image sits on it, where rounding would
    decide.

    Args:
        margins: `[B, columns]`, how much each sink is preferred to the default.
        costs: The cost table.
        wanted: The mean cost, in the table's unit.
        cost_share: `[columns]`, how the price is shared out (`CostTable.cost_share`); 0 for what has no price.

    Returns:
        The price.
    """
    margins = margins.double()
    share = (costs.cost_share if cost_share is None else cost_share).to(margins)

    def affordable(price: float) -> bool:
        return float(costs.of_routes(costs.layout.choose(margins - price * share)).mean()) <= wanted

    # At these prices, somebody changes from one sink to another: to the default, or from a sink to a cheaper one.
    worths = [(margins / share)[margins.isfinite() & (share > 0)]]
    for columns in costs.layout.junctions:
        for dear, cheap in itertools.combinations(range(columns.start, columns.stop), 2):
            gain, more = margins[:, dear] - margins[:, cheap], share[dear] - share[cheap]
            worths.append((gain / more)[gain.isfinite() & (more > 0)])
    steps = torch.unique(torch.cat(worths))
    if not len(steps):
        return 0.0  # nothing that is decided here costs anything
    prices = torch.cat([steps[:1], (steps[:-1] + steps[1:]) / 2, steps[-1:] + 1.0]).tolist()
    return float(prices[bisect_left(prices, True, key=affordable, hi=len(prices) - 1)])


def exchange_rate(worths: Tensor, gains: Tensor, costs: CostTable) -> Tensor:
    """Compare what going on gains with what units are said to be worth: `[stops]`, at most 1.

    Args:
        worths: `[unit columns]`, what the routers of the units that run say.
        gains: `[stops]`, what going on there gains.
        costs: The cost table.

    Returns:
        `[stops]`.
    """
    sections = torch.tensor(costs.layout.sections, device=worths.device)[costs.layout.of_units]
    behind = sections.unsqueeze(1) > torch.arange(len(gains), device=worths.device)
    claimed: Tensor = worths @ behind.to(worths)
    return torch.where(claimed > 0, (gains / claimed).clamp(0, 1), 1.0)


@dataclass
class PriceController(BudgetController):
    """Follows the price that the wanted cost asks for, for routers that predict benefits.

    The routers' own predictions say which price spends the wanted cost on a training batch; held-out images cost
    something else at that price, and `trim` learns how much.

    congestion: how much dearer a unit is that every image runs than one that none runs, in standard deviations of the
               margins: without it, the units that run often learn the most and routes end as one
    inertia:   how slowly the price follows from batch to batch
    integral:  how much of an excess on held-out images goes into `trim`
    trim:      what is taken off the wanted cost, because held-out images came out dearer
    ruled:     [exits] which of the exits decide by a rule: what speaks for going on is the chance of an error, at 1 at
               first, and its price that of the units behind it; learned scores know the price already (`k_cpt`)
    rates:     [n] running mean of the units' run rates
    exchange:  [exits] running mean of what going on at each exit gains, over what the routers of the units that run
               behind it say they are worth. What a router learns is what its unit is worth while nothing else changes:
               the sum over units is several times what all of them together gain, and to an exit that goes by gains,
               each unit is as much cheaper. At most 1.
    price:     of running a unit, in units of the loss
    paid:      running mean of it, which is what exits learn by
    """

    congestion: float = 0.0
    inertia: float = 0.9
    integral: float = 0.1
    trim: float = 0.0
    ruled: tuple[bool, ...] = ()
    rates: Tensor | None = None
    exchange: Tensor | None = None
    price: float = 0.0
    paid: float = 0.0

    @torch.no_grad()
    def observe(
        self, bias: Tensor, margins: Tensor, costs: CostTable, step: int, gains: Tensor | None = None
    ) -> Tensor:
        """Move the units' biases towards the price of the wanted cost: a unit runs where its margin exceeds 0 then.

        What exits have learned to decide is taken as it is; nobody stops in training, whatever a rule says. `gains` is
        for stops that learn. Those that decide by a rule take it that the end does not err.
        """
        layout = costs.layout
        units, stops = layout.of_units, list(layout.stops)
        ruled = torch.tensor(self.ruled, dtype=torch.bool, device=bias.device)
        # What routers and rules say without their bias: what running is worth, and the chance of an error.
        worths, doubts = margins[:, units] - bias[units], margins[:, stops] - ruled * (bias[stops] - 1)
        runs = layout.choose(margins)[:, units].to(margins)
        premium = self._premium(worths, runs)
        gains = torch.zeros_like(bias[stops]) if gains is None else gains.to(bias)
        claimed, gained = (worths.clamp_min(0) * runs).mean(dim=0), torch.where(ruled, doubts.mean(dim=0), gains)
        self.exchange = self._smooth(self.exchange, exchange_rate(claimed, gained, costs))
        share = self.cost_share(costs).to(bias)
        share[stops] *= ruled
        wanted = (self.wanted(step) - self.trim) * costs.dense
        priced = torch.empty_like(margins)
        priced[:, units], priced[:, stops] = worths - premium, doubts
        self.price = price_for(priced, costs, wanted, cost_share=share)
        self.paid += (1 - self.inertia) * (self.price - self.paid)
        moved = bias.clone()
        moved[units] = bias[units].lerp(-(self.price * share[units] + premium), 1 - self.inertia)
        moved[stops] = torch.where(ruled, 1 - self.price * share[stops], bias[stops])
        return moved

    def _premium(self, worths: Tensor, runs: Tensor) -> Tensor:
        """By how much each unit is dearer for being in demand [n]; `worths` and `runs` are [B, n]."""
        self.rates = self._smooth(self.rates, runs.mean(dim=0))
        return self.congestion * worths.std() * (self.rates - 0.5)

    def _smooth(self, before: Tensor | None, now: Tensor) -> Tensor:
        """Bring a running mean up to this batch."""
        return now if before is None else before.to(now).lerp(now, 1 - self.inertia)

    def cost_share(self, costs: CostTable) -> Tensor:
        """Return how a price per unit is shared out: to a stop, a unit is as much cheaper as it is worth less."""
        share = costs.cost_share
        if self.exchange is not None:
            share[list(costs.layout.stops)] *= self.exchange.to(share)
        return share

    def k_cpt(self, costs: CostTable) -> float:
        """The price of a multiply-add to exits that learn: that of a unit, over what a unit costs."""
        learned = torch.tensor([not rule for rule in self.ruled])
        rate = 1.0 if self.exchange is None or not learned.any() else float(self.exchange.cpu()[learned].mean())
        return max(0.0, self.paid) * rate / costs.typical

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed the wanted cost."""
        self.trim += self.integral * (realized - self.wanted(step))


@dataclass
class PriceRangeController(BudgetController):
    """Finds the prices that a network is to learn: from where nearly all of it runs to the wanted cost.

    What units are worth falls by orders of magnitude as the cheaper sinks learn: a range that was fixed before would
    teach them nothing, or nothing else.

    low, high: the prices, in units of the loss per ten million multiply-adds
    least:     no price is lower
    inertia:   how slowly they follow from batch to batch
    integral:  how much of an excess on held-out images, at the highest price, goes into `trim`
    trim:      what is taken off the wanted cost, because held-out images came out dearer
    """

    low: float
    high: float
    least: float
    inertia: float = 0.9
    integral: float = 0.1
    trim: float = 0.0

    def find(self, worths: Tensor, dearest: int, costs: CostTable, extra: Tensor, step: int) -> tuple[float, float]:
        """Move both prices to where a batch's `worths` [B, columns] say that they should be.

        The first `dearest` images got the highest price: what a unit is worth to an image depends on what else it
        runs. `extra` [columns] is what each sink costs over the default, in ten million multiply-adds.
        """
        wanted = self.wanted(step)
        low = price_for(worths, costs, (1 - LEEWAY * (1 - wanted)) * costs.dense, cost_share=extra)
        high = price_for(worths[:dearest], costs, (wanted - self.trim) * costs.dense, cost_share=extra)
        self.low = self._nearer(self.low, max(low, self.least))
        self.high = max(self._nearer(self.high, max(high, self.least)), 2 * self.low)
        return self.low, self.high

    def _nearer(self, price: float, to: float) -> float:
        return math.exp(self.inertia * math.log(price) + (1 - self.inertia) * math.log(to))

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed the wanted cost at the highest price."""
        self.trim += self.integral * (realized - self.wanted(step))
