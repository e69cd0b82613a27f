"""What steers a network in training to its budget: measuring the realised cost, a budget that follows, calibration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from routekit.cost.controller import BudgetController
from routekit.cost.exit_price import ExitPriceController
from routekit.cost.price import PriceController
from routekit.cost.table import CostTable
from routekit.cost.weight import CostWeightController
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace
from routekit.training.batches import rotating
from routekit.training.schedule import Schedule


@dataclass
class Control:
    """Steers `network` to `target` (MACs), by what it costs on held-out images `val`.

    There are three kinds of decisions. Those of units learn until the last phase, and are frozen in it; those of
    exits and forks learn to the end, because what they decide by does; rules do not learn. A network that decides at
    several prices is steered in another way (`price_control.py`). `say` gets sentences for the user.
    """

    network: RoutedNetwork
    val: Images
    costs: CostTable
    schedule: Schedule
    target: float
    seed: int
    accelerator: Accelerator
    say: Callable[[str], None]
    budget: BudgetController = field(init=False)
    realized: float = 1.0

    def __post_init__(self) -> None:
        self.budget = self._begin(self.target / self.costs.dense)

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor | None:  # noqa: ARG002
        """What computing costs each image of a batch [B]; None where no image gets a price of its own."""
        return None

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Take in a training batch: units' biases go where the budget wants them; for `gains` see `Losses`.

        They do so to the end where exits learn to the end: as these come to let more images past, units have to spare.
        """
        if self.schedule.is_hard(step) and not self.network.stops_learn:
            return
        # All processes see what all of them decided, so that one price steers them all.
        margins = self.accelerator.gather(trace.margins.detach())
        gains = None if gains is None else self.accelerator.reduce(gains, "mean")
        self.network.set_bias(self.budget.observe(self.network.bias, margins, self.costs, step, gains))

    def check(self, step: int) -> None:
        """Every few steps, measure the realised cost of the next few images, and let the budget correct itself."""
        config = self.schedule.config
        if step % config.check_every or not self._steers(step):
            return
        held_out = rotating(len(self.val), config.check_images, step // config.check_every, self.seed)
        self.realized = self._held_out_cost(held_out) / self.costs.dense
        self.budget.correct(self.realized, step)

    def freeze_units(self) -> None:
        """Settle which units run."""
        for bank in self.network.banks:
            bank.requires_grad_(not self.network.decides_at_units)
        if self._is_settled:
            self._calibrate()

    def settle_rules(self) -> None:
        """Meet the budget without training, where nothing that decides would learn."""
        if self.network.stops and not self.network.decides_at_units and self._is_settled:
            self._calibrate()

    def measure(self, step: int) -> Evaluation:
        """Measure accuracy, cost and routes on all held-out images at the end of an epoch, the budget met if it can be.

        It is met once nothing that decides learns any more, which exits do to the last step.
        """
        settled = self._is_settled or step == self.schedule.steps
        if not self.network.is_static and self.schedule.is_hard(step) and settled:
            self._calibrate()
        return evaluate(self.network, self.val, self.costs)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"budget": self.budget.state(), "realized": self.realized}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.budget, self.realized = type(self.budget)(**state["budget"]), state["realized"]

    def _begin(self, share: float) -> BudgetController:
        """The budget at the beginning of training; `share` is the target as a fraction of the dense cost."""
        network, config, anneal = self.network, self.schedule.config, self.schedule.anneal_steps
        if config.gate == "benefit" and network.decides_at_units:
            ruled = tuple(not each.learns for each in network.deciders)
            return PriceController(share, anneal, congestion=config.congestion, ruled=ruled)
        if network.stops_learn and not network.decides_at_units:
            return ExitPriceController(share, anneal)
        return CostWeightController(share, anneal)

    def _steers(self, step: int) -> bool:
        """Whether the budget acts on what still learns to decide."""
        return self.network.stops_learn or self._units_learn(step)

    def _units_learn(self, step: int) -> bool:
        return self.network.decides_at_units and not self.schedule.is_hard(step)

    @property
    def _is_settled(self) -> bool:
        """Whether nothing that decides learns in the last phase."""
        return not self.network.stops_learn

    def _held_out_cost(self, indices: Tensor | None = None) -> float:
        """The mean realised cost of held-out images, MACs: every process measures, one number steers them all."""
        cost = evaluate(self.network, self.val, self.costs, indices=indices).cost
        return float(self.accelerator.reduce(torch.tensor(cost, device=self.accelerator.device), "mean"))

    def _calibrate(self) -> None:
        """Meet the budget on all held-out images."""
        try:
            cost = self._meet()
        except InputError as error:
            # What was trained is good for other budgets: it stays at the price that came nearest.
            self.say(str(error))
            cost = evaluate(self.network, self.val, self.costs).cost
        self.realized = cost / self.costs.dense

    def _meet(self) -> float:
        """Meet the budget by what is added to all biases -> the cost on all held-out images, MACs.

        Raises InputError if it cannot be met.
        """
        return calibrate(self.network, self.val, self.costs, self.target, cost_share=self.budget.cost_share(self.costs))
