"""Meet a budget by a price: the threshold on what routers predict at which the wanted cost is spent."""

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.budget import Budget
from routekit.cost.model import CostModel

# Of what the target saves, a network with a dial saves this much at its lowest price. At its highest it saves this much
# of what the target leaves: the last phase changes what prices come to, and the target is to stay within.
LEEWAY = 0.05


def price_for(margins: Tensor, costs: CostModel, wanted: float, *, stakes: Tensor | None = None) -> float:
    """Find the price of running a unit at which the mean cost of a batch is `wanted` MACs, or little below.

    `margins` [B, n] is by how much each router prefers to run, or to go on; what is worth its price does, and the price
    of going on past an exit is that of the units behind it (`CostModel.stakes`, or `stakes`; 0 for what has no price).
    It lies half-way between two prices at which somebody would decide otherwise: no image sits on it, where rounding
    would decide.
    """
    margins = margins.double()
    stakes = (costs.stakes if stakes is None else stakes).to(margins)
    units, width = len(costs.layout.sections), costs.layout.width

    def affordable(price: float) -> bool:
        return float(costs.of_routes(costs.layout.choose(margins - price * stakes)).mean()) <= wanted

    # At these prices, somebody changes from one way to another: to the default, or from a way to a cheaper one.
    worths = [(margins / stakes)[margins.isfinite() & (stakes > 0)]]
    for dear, cheap in itertools.combinations(range(width), 2):
        gain, more = (part[..., dear:units:width] - part[..., cheap:units:width] for part in (margins, stakes))
        worths.append((gain / more)[gain.isfinite() & (more > 0)])
    steps = torch.unique(torch.cat(worths))
    if not len(steps):
        return 0.0  # nothing that is decided here costs anything
    prices = torch.cat([steps[:1], (steps[:-1] + steps[1:]) / 2, steps[-1:] + 1.0]).tolist()
    return float(prices[bisect_left(prices, True, key=affordable, hi=len(prices) - 1)])


def exchange_rate(worths: Tensor, gains: Tensor, costs: CostModel) -> Tensor:
    """Compare what going on gains with what units are said to be worth: [exits], at most 1.

    `worths` [columns] is what the routers of the units that run say, `gains` [exits] what going on there gains.
    """
    sections = torch.tensor(costs.layout.sections, device=worths.device)
    behind = sections.unsqueeze(1) > torch.arange(len(gains), device=worths.device)
    told: Tensor = worths @ behind.to(worths)
    return torch.where(told > 0, (gains / told).clamp(0, 1), 1.0)


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
    def follow(
        self, offset: Tensor, margins: Tensor, costs: CostModel, step: int, gains: Tensor | None = None
    ) -> Tensor:
        """Move the units' offsets towards the price of the wanted cost: a unit runs where its margin exceeds 0 then.

        What exits have learned to decide is taken as it is; nobody stops in training, whatever a rule says. `gains`
        [exits] is by how much the batch's mean error falls from each exit to the end of the network, for exits that
        learn; those that decide by a rule take it that the end does not err.
        """
        units, ruled = len(costs.layout.sections), torch.tensor(self.ruled, dtype=torch.bool, device=offset.device)
        # What routers and rules say without their offsets: what running is worth, and the chance of an error.
        worths, doubts = margins[:, :units] - offset[:units], margins[:, units:] - ruled * (offset[units:] - 1)
        runs = costs.layout.choose(margins)[:, :units].to(margins)
        premium = self._premium(worths, runs)
        gains = torch.zeros_like(offset[units:]) if gains is None else gains.to(offset)
        told, gained = (worths.clamp_min(0) * runs).mean(dim=0), torch.where(ruled, doubts.mean(dim=0), gains)
        self.exchange = self._smooth(self.exchange, exchange_rate(told, gained, costs))
        stakes = self.stakes(costs).to(offset)
        stakes[units:] *= ruled
        wanted = (self.wanted(step) - self.trim) * costs.dense
        self.price = price_for(torch.cat([worths - premium, doubts], dim=1), costs, wanted, stakes=stakes)
        self.paid += (1 - self.inertia) * (self.price - self.paid)
        of_units = offset[:units].lerp(-(self.price * stakes[:units] + premium), 1 - self.inertia)
        of_exits = torch.where(ruled, 1 - self.price * stakes[units:], offset[units:])
        return torch.cat([of_units, of_exits])

    def _premium(self, worths: Tensor, runs: Tensor) -> Tensor:
        """By how much each unit is dearer for being in demand [n]; `worths` and `runs` are [B, n]."""
        self.rates = self._smooth(self.rates, runs.mean(dim=0))
        return self.congestion * worths.std() * (self.rates - 0.5)

    def _smooth(self, before: Tensor | None, now: Tensor) -> Tensor:
        """Bring a running mean up to this batch."""
        return now if before is None else before.to(now).lerp(now, 1 - self.inertia)

    def stakes(self, costs: CostModel) -> Tensor:
        """How a price per unit is shared out: to an exit, a unit is as much cheaper as it is worth less."""
        stakes, units = costs.stakes, len(costs.layout.sections)
        if self.exchange is not None:
            stakes[units:] *= self.exchange.to(stakes)
        return stakes

    def k_cpt(self, costs: CostModel) -> float:
        """The price of a multiply-add to exits that learn: that of a unit, over what a unit costs."""
        learned = torch.tensor([not rule for rule in self.ruled])
        rate = 1.0 if self.exchange is None or not learned.any() else float(self.exchange.cpu()[learned].mean())
        return max(0.0, self.paid) * rate / costs.typical

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed the wanted cost."""
        self.trim += self.integral * (realized - self.wanted(step))


@dataclass
class PriceRange(Budget):
    """Finds the prices that a network with a dial is to learn, from where nearly all of it runs to the wanted cost.

    What units are worth falls by orders of magnitude as the cheaper ways learn: a range that was fixed before would
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

    def find(self, worths: Tensor, dearest: int, costs: CostModel, surplus: Tensor, step: int) -> tuple[float, float]:
        """Move both prices to where a batch's `worths` [B, columns] say that they should be.

        The first `dearest` images were told the highest price: what a unit is worth to an image depends on what else it
        runs. `surplus` [columns] is what each way costs over the default, in ten million multiply-adds.
        """
        wanted = self.wanted(step)
        low = price_for(worths, costs, (1 - LEEWAY * (1 - wanted)) * costs.dense, stakes=surplus)
        high = price_for(worths[:dearest], costs, (wanted - self.trim) * costs.dense, stakes=surplus)
        self.low = self._nearer(self.low, max(low, self.least))
        self.high = max(self._nearer(self.high, max(high, self.least)), 2 * self.low)
        return self.low, self.high

    def _nearer(self, price: float, to: float) -> float:
        return math.exp(self.inertia * math.log(price) + (1 - self.inertia) * math.log(to))

    def correct(self, realized: float, step: int) -> None:
        """Learn by how much held-out images exceed the wanted cost at the highest price."""
        self.trim += self.integral * (realized - self.wanted(step))
