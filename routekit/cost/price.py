"""Meet a budget by a price: a unit runs where its predicted benefit exceeds its price."""

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController
from routekit.cost.table import CostTable

# A network that decides at several prices saves this share of the target's savings at its lowest price. At its highest
# price it costs less than the target, by this share of what the target costs over the minimum. The last phase of
# training changes what prices cost, and the target must stay within the range.
LEEWAY = 0.05


def price_for(margins: Tensor, costs: CostTable, wanted: float, cost_share: Tensor) -> float:
    """Find the price of a unit at which the mean cost of a batch is `wanted`, or a little less.

    An image takes a sink if its margin exceeds the price. The price lies half-way between two prices at which a
    decision changes, so that rounding changes no decision.

    Args:
        margins: `[B, columns]`, how much each sink is preferred to the default.
        costs: The cost table.
        wanted: The mean cost, in the table's unit.
        cost_share: `[columns]`, the price of each column if a unit has price 1 (`CostTable.cost_share`).

    Returns:
        The price. It is 0 if no column has a price.
    """
    margins = margins.double()
    share = cost_share.to(margins)

    def affordable(price: float) -> bool:
        return float(costs.of_routes(costs.layout.choose(margins - price * share)).mean()) <= wanted

    # The prices at which a decision changes: from a sink to the default, or to a cheaper sink.
    worths = [(margins / share)[margins.isfinite() & (share > 0)]]
    for columns in costs.layout.junctions:
        for dear, cheap in itertools.combinations(range(columns.start, columns.stop), 2):
            gain, more = margins[:, dear] - margins[:, cheap], share[dear] - share[cheap]
            worths.append((gain / more)[gain.isfinite() & (more > 0)])
    steps = torch.unique(torch.cat(worths))
    if not len(steps):
        return 0.0
    prices = torch.cat([steps[:1], (steps[:-1] + steps[1:]) / 2, steps[-1:] + 1.0]).tolist()
    return float(prices[bisect_left(prices, True, key=affordable, hi=len(prices) - 1)])


def exchange_rate(worths: Tensor, gains: Tensor, costs: CostTable) -> Tensor:
    """Compute what going on at each stop gains, as a share of the predicted worth of the units behind it.

    Args:
        worths: `[unit columns]`, the mean predicted worth of each unit; 0 for images that do not run it.
        gains: `[stops]`, the mean gain of going on.
        costs: The cost table.

    Returns:
        `[stops]`, between 0 and 1. It is 1 if no worth is predicted.
    """
    sections = torch.tensor(costs.layout.sections, device=worths.device)[costs.layout.of_units]
    behind = sections.unsqueeze(1) > torch.arange(len(gains), device=worths.device)
    claimed: Tensor = worths @ behind.to(worths)
    return torch.where(claimed > 0, (gains / claimed).clamp(0, 1), 1.0)


@dataclass
class PriceController(BudgetController):
    """Follows the price at which the wanted cost is spent, for routers that predict benefits.

    The predictions give the price at which a training batch spends the wanted cost. At that price, held-out images cost
    something else. `trim` integrates the difference.

    The benefit of a unit is what it is worth while all other units stay as they are. The sum over units is several
    times the gain of all of them together. Exits learn from gains, so `exchange` lowers the price that they pay.

    Attributes:
        congestion: The difference in price between a unit that all images run and one that none runs, in standard
            deviations of the margins. Without it, units that run often learn the most, and all routes become the same.
        inertia: The weight of the past in all running means.
        integral: The share of the excess of held-out images that is added to `trim`.
        trim: By how much less than wanted a training batch may cost, because held-out images cost more.
        ruled: `[stops]`, which stops decide by a rule. Their score is the chance of an error, plus 1 at first. Their
            price is that of the units behind them. Stops that learn have the price in what they learn (`k_cpt`).
        rates: `[unit columns]`, the running mean of the units' run rates.
        exchange: `[stops]`, the running mean of `exchange_rate`.
        price: The price of a unit, in units of the loss.
        paid: The running mean of the price, from which exits learn.
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
        """Move the units' biases, and those of rules, towards the price of the wanted cost.

        The bias of a stop that learns stays. In training all images go on to the end, whatever a rule decides. `gains`
        is for stops that learn. The gain of a stop with a rule is the chance of an error, as if the end never erred.
        """
        layout = costs.layout
        units, stops = layout.of_units, list(layout.stops)
        ruled = torch.tensor(self.ruled, dtype=torch.bool, device=bias.device)
        # The scores without the biases: the worth of each unit, and the chance of an error at each stop.
        worths, doubts = margins[:, units] - bias[units], margins[:, stops] - ruled * (bias[stops] - 1)
        runs = layout.choose(margins)[:, units].to(margins)
        self.rates = self._smooth(self.rates, runs.mean(dim=0))
        premium = self.congestion * worths.std() * (self.rates - 0.5)
        gains = torch.zeros_like(bias[stops]) if gains is None else gains.to(bias)
        claimed, gained = (worths.clamp_min(0) * runs).mean(dim=0), torch.where(ruled, doubts.mean(dim=0), gains)
        self.exchange = self._smooth(self.exchange, exchange_rate(claimed, gained, costs))
        share = self.cost_share(costs).to(bias)
        share[stops] *= ruled
        priced = torch.empty_like(margins)
        priced[:, units], priced[:, stops] = worths - premium, doubts
        self.price = price_for(priced, costs, (self.wanted(step) - self.trim) * costs.dense, share)
        self.paid += (1 - self.inertia) * (self.price - self.paid)
        moved = bias.clone()
        moved[units] = bias[units].lerp(-(self.price * share[units] + premium), 1 - self.inertia)
        moved[stops] = torch.where(ruled, 1 - self.price * share[stops], bias[stops])
        return moved

    def _smooth(self, before: Tensor | None, now: Tensor) -> Tensor:
        """Return a running mean after this batch."""
        return now if before is None else before.to(now).lerp(now, 1 - self.inertia)

    def cost_share(self, costs: CostTable) -> Tensor:
        """Return the price `[columns]` of each column if a unit has price 1. For stops, `exchange` lowers it."""
        share = costs.cost_share
        if self.exchange is not None:
            share[list(costs.layout.stops)] *= self.exchange.to(share)
        return share

    def k_cpt(self, costs: CostTable) -> float:
        """Return the price of one unit of cost to exits that learn: the price of a unit over what it costs."""
        learned = torch.tensor([not rule for rule in self.ruled])
        rate = 1.0 if self.exchange is None or not learned.any() else float(self.exchange.cpu()[learned].mean())
        return max(0.0, self.paid) * rate / costs.typical

    def correct(self, realized: float, step: int) -> None:
        """Integrate the excess of held-out images over the wanted cost."""
        self.trim += self.integral * (realized - self.wanted(step))


@dataclass
class PriceRangeController(BudgetController):
    """Finds the prices that a network is to learn: from where nearly all of it runs to the wanted cost.

    The worth of units falls by orders of magnitude while the cheaper sinks learn. A fixed range of prices would not
    follow that.

    Attributes:
        low: The lowest price, in units of the loss per ten million multiply-adds.
        high: The highest price.
        least: The lower bound of all prices.
        inertia: The weight of the past in both prices.
        integral: The share of the excess of held-out images at the highest price that is added to `trim`.
        trim: By how much less than wanted a training batch may cost, because held-out images cost more.
    """

    low: float
    high: float
    least: float
    inertia: float = 0.9
    integral: float = 0.1
    trim: float = 0.0

    def find(self, worths: Tensor, dearest: int, costs: CostTable, extra: Tensor, step: int) -> tuple[float, float]:
        """Move both prices towards those of a batch.

        Args:
            worths: `[B, columns]`, the predicted worth of each sink.
            dearest: The number of images, from the first on, that had the highest price. The worth of a unit to an
                image depends on which other units it runs, so these alone set the highest price.
            costs: The cost table.
            extra: `[columns]`, what each sink costs over the default, in ten million multiply-adds.
            step: The step.

        Returns:
            The lowest and the highest price.
        """
        wanted = self.wanted(step)
        low = price_for(worths, costs, (1 - LEEWAY * (1 - wanted)) * costs.dense, extra)
        high = price_for(worths[:dearest], costs, (wanted - self.trim) * costs.dense, extra)
        self.low = self._smooth(self.low, low)
        self.high = max(self._smooth(self.high, high), 2 * self.low)
        return self.low, self.high

    def _smooth(self, before: float, now: float) -> float:
        """Return a price after this batch: a running mean of logarithms."""
        return math.exp(self.inertia * math.log(before) + (1 - self.inertia) * math.log(max(now, self.least)))

    def correct(self, realized: float, step: int) -> None:
        """Integrate the excess of held-out images over the wanted cost, at the highest price."""
        self.trim += self.integral * (realized - self.wanted(step))
