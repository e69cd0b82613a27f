"""What steers a network that decides at several prices: it learns all of them, and one meets its budget."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from routekit.cost.controller import BudgetController, GivenPrices
from routekit.cost.price import LEEWAY, PriceRangeController
from routekit.evaluation.calibrate import set_price
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import OPERATIONS, PriceConditioning
from routekit.routing.decision import RouteTrace
from routekit.training.control import Control

# The share of a batch that gets the highest price: with the least to compute with, there is the most to learn.
DEAREST = 0.5
# By how much the highest price is raised where it does not meet the target, and how often.
WIDER, WIDENINGS = 1.1, 10


def control_of(network: RoutedNetwork) -> type[Control]:
    """What steers `network`."""
    if network.pricing is None:
        return Control
    return RangeControl if network.pricing.finds else GivenPricesControl


class GivenPricesControl(Control):
    """Gives each image of a batch a price of its own, from the range that was asked for."""

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """What computing costs each image of a batch [B]; it rises in the beginning."""
        rise = min(1.0, (step + 1) / max(1, self.schedule.anneal_steps))
        return rise * self._pricing.range.draw(count, generator).to(self.accelerator.device)

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Leave everything as it is: the prices are given."""

    def _begin(self, share: float) -> BudgetController:
        units = self.costs.layout.of_units
        self._pricing.extra_cost.copy_(self.costs.extra[units] / OPERATIONS)
        return GivenPrices(share, self.schedule.anneal_steps)

    def _steers(self, step: int) -> bool:
        del step
        return False

    @property
    def _is_settled(self) -> bool:
        return False  # which price it is to be is asked last

    @property
    def _pricing(self) -> PriceConditioning:
        assert self.network.pricing is not None
        return self.network.pricing

    def _meet(self) -> float:
        """Meet the budget by a price."""
        return set_price(self.network, self.val, self.costs, self.target)


class RangeControl(GivenPricesControl):
    """Finds the range of prices itself, for a network whose units alone decide: the highest one meets the target."""

    _prices: Tensor

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """What computing costs each image of a batch [B]; to many of them, the most."""
        del step
        self._prices = self._pricing.range.draw(count, generator, DEAREST).to(self.accelerator.device)
        return self._prices

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Move the range to where the batch says that it should be, while units learn; all processes have one."""
        del gains
        if self.schedule.is_hard(step):
            return
        extra = self._pricing.extra_cost
        worths = trace.margins.detach() + self._prices.unsqueeze(1) * extra
        bounds = self._range.find(worths, round(DEAREST * len(worths)), self.costs, extra, step)
        logarithms = torch.tensor(bounds, device=self.accelerator.device).log()
        low, high = self.accelerator.reduce(logarithms, "mean").exp().tolist()
        self._set_range(low, high)

    def freeze_units(self) -> None:
        """Settle which units run at which price."""
        super().freeze_units()
        self._reach(self.budget.target * self.costs.dense)

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load(state)
        self._set_range(self._range.low, self._range.high)

    def _begin(self, share: float) -> BudgetController:
        super()._begin(share)
        low, high = self._pricing.range.lowest, self._pricing.range.highest
        share -= LEEWAY * (share - self.costs.minimum / self.costs.dense)
        return PriceRangeController(share, self.schedule.anneal_steps, low=low, high=high, least=low)

    def _steers(self, step: int) -> bool:
        return self._units_learn(step)

    def _held_out_cost(self, indices: Tensor | None = None) -> float:
        """What held-out images cost at the highest price."""
        self.network.set_price(self._range.high)
        return super()._held_out_cost(indices)

    def _meet(self) -> float:
        self._reach(self.target)
        return super()._meet()

    def _reach(self, target: float) -> None:
        """Raise the highest price a little, if the one found does not bring all held-out images to `target` MACs."""
        for _ in range(WIDENINGS):
            if self._held_out_cost() <= target:
                return
            self._set_range(self._range.low, WIDER * self._range.high)

    @property
    def _range(self) -> PriceRangeController:
        assert isinstance(self.budget, PriceRangeController)
        return self.budget

    def _set_range(self, low: float, high: float) -> None:
        self._range.low, self._range.high = low, high
        self._pricing.range = replace(self._pricing.range, low=low, high=high)
