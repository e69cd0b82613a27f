"""What steers a network in training to its budget: measuring the realised cost, a budget that follows, calibration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from routekit.cost.budget import Budget, Unsteered
from routekit.cost.model import CostModel
from routekit.cost.price import Price
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


def decides(network: RoutedNetwork) -> bool:
    """Whether `network` takes any decision, learned or by a rule."""
    return bool(network.exits) or learns_routes(network)


def learns_routes(network: RoutedNetwork) -> bool:
    """Whether units of `network` have routers that learn what running them is worth; forks learn as exits do."""
    return bool(network.junctions) and not network.is_tree and not isinstance(network.routers, FixedRoute)


@dataclass
class Control:
    """Steers `network` to `target` (MACs), by what it costs on held-out images `val`.

    There are three kinds of decisions. Those of units learn until the last phase, and are frozen in it; those of exits
    and forks learn to the end, because what they decide by does; rules do not learn. A network with a dial learns at
    all prices, and is steered by none. `say` is told in sentences what the user should know.
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

    def __post_init__(self) -> None:
        network, config = self.network, self.schedule.config
        share, anneal = self.target / self.costs.dense, self.schedule.anneal_steps
        if network.dial is not None:
            self.budget = Unsteered(share, anneal)
            network.dial.surplus.copy_(self.costs.surplus / OPERATIONS)
        elif config.gate == "benefit" and network.junctions and not network.is_tree:
            ruled = tuple(each.certainty is not None for each in network.exits)
            self.budget = Price(share, anneal, congestion=config.congestion, ruled=ruled)
        else:
            self.budget = CostWeight(share, anneal)

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor | None:
        """What computing costs each image of a batch [B], for a network with a dial; it rises in the beginning."""
        if self.network.dial is None:
            return None
        rise = min(1.0, (step + 1) / max(1, self.schedule.anneal_steps))
        return rise * self.network.dial.range.draw(count, generator).to(self.accelerator.device)

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Take in a training batch: units' offsets go where the budget wants them; for `gains` see `Losses`.

        They do so to the end where exits learn to the end: as these come to let more images past, units have to spare.
        """
        if not self.schedule.is_hard(step) or self.network.exits_learn:
            margins = trace.margins.detach()
            offset = self.budget.follow(self.network.offset, margins, self.costs, step, gains)
            self.network.set_offset(offset)

    def check(self, step: int) -> None:
        """Every few steps, measure the realised cost of the next few images, and let the budget correct itself."""
        config = self.schedule.config
        units = learns_routes(self.network) and not self.schedule.is_hard(step)
        steered = self.network.dial is None and (units or self.network.exits_learn)
        if not steered or step % config.check_every:
            return
        held_out = rotating(len(self.val), config.check_images, step // config.check_every, self.seed)
        cost = evaluate(self.network, self.val, self.costs, indices=held_out).cost
        # Every process measures, with batch-norm statistics of its own; one number steers them all.
        together = self.accelerator.reduce(torch.tensor(cost, device=self.accelerator.device), "mean")
        self.realized = float(together) / self.costs.dense
        self.budget.correct(self.realized, step)

    def freeze_units(self) -> None:
        """Settle which units run."""
        self.network.routers.requires_grad_(not learns_routes(self.network))
        if self._is_settled:
            self._calibrate()

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

    @property
    def _is_settled(self) -> bool:
        """Whether nothing that decides learns in the last phase."""
        return not self.network.exits_learn and self.network.dial is None

    def _calibrate(self) -> None:
        """Meet the budget on all held-out images by what is added to all offsets, or by the dial."""
        try:
            if self.network.dial is None:
                stakes = self.budget.stakes(self.costs)
                cost = calibrate(self.network, self.val, self.costs, self.target, stakes=stakes)
            else:
                cost = set_price(self.network, self.val, self.costs, self.target)
        except InputError as error:
            # What was trained is good for other budgets: it stays at the price that came nearest.
            self.say(str(error))
            cost = evaluate(self.network, self.val, self.costs).cost
        self.realized = cost / self.costs.dense
