"""What steers a network that decides at several prices: it learns all of them, and one of them meets its budget."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController, GivenPrices
from routekit.cost.price import LEEWAY, PriceRangeController
from routekit.data.image_set import Images
from routekit.evaluation.calibrate import set_price
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import OPERATIONS, PriceConditioning
from routekit.routing.decision import RouteTrace
from routekit.training.control import Control

# The share of a batch that gets the highest price, which is the hardest to learn.
DEAREST = 0.5
# By how much the highest price is raised if it does not meet the target, and how often.
WIDER, WIDENINGS = 1.1, 10


def control_of(network: RoutedNetwork) -> type[Control]:
    """Return the class that steers `network`."""
    if network.pricing is None:
        return Control
    return RangeControl if network.pricing.finds else GivenPricesControl


class GivenPricesControl(Control):
    """Gives each image of a batch a price of its own, from a range that the user gives."""

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw the prices of a batch. They rise from 0 in the beginning."""
        rise = min(1.0, (step + 1) / max(1, self.schedule.anneal_steps))
        return rise * self._pricing.range.draw(count, generator).to(self.accelerator.device)

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Do nothing: the prices are given."""

    def _begin(self, share: float) -> BudgetController:
        self._pricing.extra_cost.copy_(self.costs.extra[self.costs.layout.of_units] / OPERATIONS)
        return GivenPrices(share, self.schedule.anneal_steps)

    def _steers(self, step: int) -> bool:
        del step
        return False

    @property
    def _learns_to_the_end(self) -> bool:
        """Whether something learns to decide in the last phase. The price is chosen after it in any case."""
        return True

    @property
    def _pricing(self) -> PriceConditioning:
        assert self.network.pricing is not None
        return self.network.pricing

    def _meet(self) -> float:
        """Meet the budget by a price -> the cost of all held-out images, MACs."""
        return set_price(self.network, self.val, self.costs, self.target)


class RangeControl(GivenPricesControl):
    """Finds the range of prices, for a network in which units alone decide. The highest price meets the target."""

    budget: PriceRangeController
    _prices: Tensor

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """Draw the prices of a batch. The first images get the highest price."""
        del step
        self._prices = self._pricing.range.draw(count, generator, DEAREST).to(self.accelerator.device)
        return self._prices

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Move the range towards that of the batch, while units learn. All processes have the same range."""
        del gains
        if self.schedule.is_hard(step):
            return
        extra = self._pricing.extra_cost
        worths = trace.margins.detach() + self._prices.unsqueeze(1) * extra
        bounds = self.budget.find(worths, round(DEAREST * len(worths)), self.costs, extra, step)
        logarithms = torch.tensor(bounds, device=self.accelerator.device).log()
        self._set_range(*self.accelerator.reduce(logarithms, "mean").exp().tolist())

    def freeze_units(self) -> None:
        """Freeze the routers, and widen the range to the wanted cost."""
        super().freeze_units()
        self._reach(self.budget.target * self.costs.dense)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load(state)
        self._set_range(self.budget.low, self.budget.high)

    def _begin(self, share: float) -> PriceRangeController:
        super()._begin(share)
        low, high = self._pricing.range.lowest, self._pricing.range.highest
        share -= LEEWAY * (share - self.costs.minimum / self.costs.dense)
        return PriceRangeController(share, self.schedule.anneal_steps, low=low, high=high, least=low)

    def _steers(self, step: int) -> bool:
        return not self.schedule.is_hard(step)

    def _cost_of(self, images: Images) -> float:
        """Measure the mean realised cost of images at the highest price, MACs."""
        self.network.set_price(self.budget.high)
        return super()._cost_of(images)

    def _meet(self) -> float:
        self._reach(self.target)
        return super()._meet()

    def _reach(self, target: float) -> None:
        """Raise the highest price until held-out images cost no more than `target`, MACs, at that price."""
        for _ in range(WIDENINGS):
            if self._cost_of(self.val) <= target:
                return
            self._set_range(self.budget.low, WIDER * self.budget.high)

    def _set_range(self, low: float, high: float) -> None:
        self.budget.low, self.budget.high = low, high
        self._pricing.range = replace(self._pricing.range, low=low, high=high)
