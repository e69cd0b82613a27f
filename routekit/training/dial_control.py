"""What steers a network with a dial: it learns to decide at all prices, and its budget is met by one of them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from routekit.cost.budget import Budget, Unsteered
from routekit.cost.price import LEEWAY, PriceRange
from routekit.evaluation.calibrate import set_price
from routekit.network.dial import OPERATIONS, Dial
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace
from routekit.training.control import Control

# The share of a batch that is told the highest price: with the least to compute with, there is the most to learn.
DEAREST = 0.5
# By how much the highest price is raised where it does not meet the target, and how often.
WIDER, WIDENINGS = 1.1, 10


def control_of(network: RoutedNetwork) -> type[Control]:
    """The way in which `network` is steered."""
    if network.dial is None:
        return Control
    return RangeControl if network.dial.finds else DialControl


class DialControl(Control):
    """Tells each image of a batch a price of its own, from the range that the dial was given."""

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """What computing costs each image of a batch [B]; it rises in the beginning."""
        rise = min(1.0, (step + 1) / max(1, self.schedule.anneal_steps))
        return rise * self._dial.range.draw(count, generator).to(self.accelerator.device)

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Leave everything as it is: the prices are given."""

    def _begin(self, share: float) -> Budget:
        self._dial.surplus.copy_(self.costs.surplus / OPERATIONS)
        return Unsteered(share, self.schedule.anneal_steps)

    def _steers(self, step: int) -> bool:
        del step
        return False

    @property
    def _is_settled(self) -> bool:
        return False  # which price it is to be is asked last

    @property
    def _dial(self) -> Dial:
        assert self.network.dial is not None
        return self.network.dial

    def _meet(self) -> float:
        """Meet the budget by the dial."""
        return set_price(self.network, self.val, self.costs, self.target)


class RangeControl(DialControl):
    """Finds the range of prices itself, for a network whose units alone decide: the highest one meets the target."""

    _prices: Tensor

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """What computing costs each image of a batch [B]; to many of them, the most."""
        del step
        self._prices = self._dial.range.draw(count, generator, DEAREST).to(self.accelerator.device)
        return self._prices

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Move the range to where the batch says that it should be, while units learn; all processes have one."""
        del gains
        if self.schedule.is_hard(step):
            return
        surplus = self._dial.surplus
        worths = trace.margins.detach() + self._prices.unsqueeze(1) * surplus
        bounds = self._range.find(worths, round(DEAREST * len(worths)), self.costs, surplus, step)
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

    def _begin(self, share: float) -> Budget:
        super()._begin(share)
        low, high = self._dial.range.lowest, self._dial.range.highest
        share -= LEEWAY * (share - self.costs.minimum / self.costs.dense)
        return PriceRange(share, self.schedule.anneal_steps, low=low, high=high, least=low)

    def _steers(self, step: int) -> bool:
        return self._units_learn(step)

    def _held_out_cost(self, indices: Tensor | None = None) -> float:
        """What held-out images cost at the highest price."""
        self.network.set_dial(self._range.high)
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
    def _range(self) -> PriceRange:
        assert isinstance(self.budget, PriceRange)
        return self.budget

    def _set_range(self, low: float, high: float) -> None:
        self._range.low, self._range.high = low, high
        self._dial.range = replace(self._dial.range, low=low, high=high)
