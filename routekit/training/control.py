"""What steers a network in training to its budget: measuring the realised cost, a budget that follows, calibration."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from routekit.cost.budget import Budget, Unsteered
from routekit.cost.model import CostModel
from routekit.cost.price import LEEWAY, Price, PriceRange
from routekit.cost.toll import Toll
from routekit.cost.weight import CostWeight
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate, set_price
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.network.dial import OPERATIONS
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace
from routekit.routing.router import FixedRoute
from routekit.training.batches import rotating
from routekit.training.schedule import Schedule

# The share of a batch that is told the highest price: with the least to compute with, there is the most to learn.
DEAREST = 0.5
# By how much the highest price is raised where it does not meet the target, and how often.
WIDER, WIDENINGS = 1.1, 10


def decides(network: RoutedNetwork) -> bool:
    """Whether `network` takes any decision, learned or by a rule."""
    return bool(network.exits) or learns_routes(network)


def learns_routes(network: RoutedNetwork) -> bool:
    """Whether units of `network` have routers that learn what running them is worth; forks learn as exits do."""
    return bool(network.junctions) and not network.is_tree and not isinstance(network.routers, FixedRoute)


@dataclass
class Control:
    """Steers `network` to `target` (MACs), by what it costs on held-out images `val`.

    There are three kinds of decisions. Those of units learn until the last phase, and are frozen in it; those of
    exits and forks learn to the end, because what they decide by does; rules do not learn. A network with a dial
    learns at all prices; of units alone, it is steered to where the highest of them meets the target. `say` is told
    in sentences what the user should know.
    """

    network: RoutedNetwork
    val: Images
    costs: CostModel
    schedule: Schedule
    target: float
    seed: int
    accelerator: Accelerator
    say: Callable[[str], None]
    budget: Budget = field(init=False)
    realized: float = 1.0
    _prices: Tensor = field(init=False)

    def __post_init__(self) -> None:
        network, config = self.network, self.schedule.config
        share, anneal = self.target / self.costs.dense, self.schedule.anneal_steps
        if network.dial is not None:
            network.dial.surplus.copy_(self.costs.surplus / OPERATIONS)
            self.budget = Unsteered(share, anneal)
            if network.dial.finds:
                low, high = network.dial.range.lowest, network.dial.range.highest
                share -= LEEWAY * (share - self.costs.minimum / self.costs.dense)
                self.budget = PriceRange(share, anneal, low=low, high=high, least=low)
        elif config.gate == "benefit" and network.junctions and not network.is_tree:
            ruled = tuple(each.certainty is not None for each in network.exits)
            self.budget = Price(share, anneal, congestion=config.congestion, ruled=ruled)
        elif network.exits_learn and not learns_routes(network):
            self.budget = Toll(share, anneal)
        else:
            self.budget = CostWeight(share, anneal)

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor | None:
        """What computing costs each image of a batch [B], for a network with a dial; it rises in the beginning."""
        dial = self.network.dial
        if dial is None:
            return None
        rise = 1.0 if dial.finds else min(1.0, (step + 1) / max(1, self.schedule.anneal_steps))
        drawn = dial.range.draw(count, generator, DEAREST if dial.finds else 0.0)
        self._prices = rise * drawn.to(self.accelerator.device)
        return self._prices

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Take in a training batch: units' offsets go where the budget wants them; for `gains` see `Losses`.

        They do so to the end where exits learn to the end: as these come to let more images past, units have to spare.
        """
        margins = trace.margins.detach()
        if self.network.dial is not None:
            if isinstance(self.budget, PriceRange) and not self.schedule.is_hard(step):
                self._find_prices(step, margins)
        elif not self.schedule.is_hard(step) or self.network.exits_learn:
            # All processes see what all of them decided, so that one price steers them all.
            margins = self.accelerator.gather(margins)
            gains = None if gains is None else self.accelerator.reduce(gains, "mean")
            offset = self.budget.follow(self.network.offset, margins, self.costs, step, gains)
            self.network.set_offset(offset)

    def check(self, step: int) -> None:
        """Every few steps, measure the realised cost of the next few images, and let the budget correct itself."""
        config = self.schedule.config
        units = learns_routes(self.network) and not self.schedule.is_hard(step)
        dial = self.network.dial
        steered = units or self.network.exits_learn if dial is None else units and dial.finds
        if not steered or step % config.check_every:
            return
        if dial is not None:
            self.network.set_dial(dial.range.highest)
        held_out = rotating(len(self.val), config.check_images, step // config.check_every, self.seed)
        self.realized = self._held_out_cost(held_out) / self.costs.dense
        self.budget.correct(self.realized, step)

    def freeze_units(self) -> None:
        """Settle which units run."""
        self.network.routers.requires_grad_(not learns_routes(self.network))
        if self._is_settled:
            self._calibrate()
        self._reach(self.budget.target * self.costs.dense)

    def settle_rules(self) -> None:
        """Meet the budget without training, where nothing that decides would learn."""
        if self.network.exits and not learns_routes(self.network) and self._is_settled:
            self._calibrate()

    def measure(self, step: int) -> Evaluation:
        """Measure accuracy, cost and routes on all held-out images at the end of an epoch, the budget met if it can be.

        It is met once nothing that decides learns any more, which exits do to the last step.
        """
        settled = self._is_settled or step == self.schedule.steps
        if decides(self.network) and self.schedule.is_hard(step) and settled:
            self._calibrate()
        return evaluate(self.network, self.val, self.costs)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"budget": self.budget.state(), "realized": self.realized}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.budget, self.realized = type(self.budget)(**state["budget"]), state["realized"]
        if isinstance(self.budget, PriceRange):
            self._tell_dial(self.budget.low, self.budget.high)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing that decides learns in the last phase."""
        return not self.network.exits_learn and self.network.dial is None

    def _find_prices(self, step: int, margins: Tensor) -> None:
        """Move the range of prices to where the batch says that it should be; all processes have the same one."""
        assert isinstance(self.budget, PriceRange)
        assert self.network.dial is not None
        surplus = self.network.dial.surplus
        worths = margins + self._prices.unsqueeze(1) * surplus
        bounds = self.budget.find(worths, round(DEAREST * len(worths)), self.costs, surplus, step)
        logarithms = torch.tensor(bounds, device=self.accelerator.device).log()
        together = self.accelerator.reduce(logarithms, "mean").exp()
        self.budget.low, self.budget.high = (float(bound) for bound in together)
        self._tell_dial(self.budget.low, self.budget.high)

    def _held_out_cost(self, indices: Tensor | None = None) -> float:
        """The mean realised cost of held-out images, MACs: every process measures, one number steers them all."""
        cost = evaluate(self.network, self.val, self.costs, indices=indices).cost
        return float(self.accelerator.reduce(torch.tensor(cost, device=self.accelerator.device), "mean"))

    def _reach(self, target: float) -> None:
        """Raise the highest price a little, if the one found does not bring all held-out images to `target` MACs."""
        if not isinstance(self.budget, PriceRange):
            return
        for _ in range(WIDENINGS):
            self.network.set_dial(self.budget.high)
            if self._held_out_cost() <= target:
                return
            self.budget.high *= WIDER
            self._tell_dial(self.budget.low, self.budget.high)

    def _tell_dial(self, low: float, high: float) -> None:
        assert self.network.dial is not None
        self.network.dial.range = replace(self.network.dial.range, low=low, high=high)

    def _calibrate(self) -> None:
        """Meet the budget on all held-out images by what is added to all offsets, or by the dial."""
        try:
            if self.network.dial is None:
                stakes = self.budget.stakes(self.costs)
                cost = calibrate(self.network, self.val, self.costs, self.target, stakes=stakes)
            else:
                self._reach(self.target)
                cost = set_price(self.network, self.val, self.costs, self.target)
        except InputError as error:
            # What was trained is good for other budgets: it stays at the price that came nearest.
            self.say(str(error))
            cost = evaluate(self.network, self.val, self.costs).cost
        self.realized = cost / self.costs.dense
