"""What steers a network in training to its budget: it measures the realised cost, adapts a price, and calibrates."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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
from routekit.errors import InputError, TrainingError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace
from routekit.routing.gate import Gate, hard
from routekit.training.batches import rotating
from routekit.training.schedule import Schedule


@dataclass
class Control:
    """Steers a network to a target, by what it costs on held-out images.

    Units learn to decide until the last phase, in which their routers are frozen. Exits and forks learn to the end,
    because the answers on which they decide change to the end. Rules do not learn. `price_control.py` has the control
    of a network that decides at several prices.

    Attributes:
        network: The network.
        val: The held-out images.
        costs: Its cost table.
        schedule: When things happen.
        target: The budget, MACs.
        seed: Of the order in which held-out images are measured.
        accelerator: The processes that train together.
        say: Called with sentences for the user.
        gate: How inference decides.
        budget: The controller.
        realized: The last measured cost, a fraction of the dense one.
    """

    network: RoutedNetwork
    val: Images
    costs: CostTable
    schedule: Schedule
    target: float
    seed: int
    accelerator: Accelerator
    say: Callable[[str], None]
    gate: Gate = hard
    budget: BudgetController = field(init=False)
    realized: float = 1.0

    def __post_init__(self) -> None:
        """Begin with the dense cost."""
        self.budget = self._begin(self.target / self.costs.dense)

    def prices(self, step: int, count: int, generator: torch.Generator) -> Tensor | None:  # noqa: ARG002
        """Draw the price of computing of each image of a batch.

        Args:
            step: The step.
            count: B, the number of images.
            generator: Of the draws.

        Returns:
            `[B]`, as in `PriceRange`. None if images have no prices of their own.
        """
        return None

    def follow(self, step: int, trace: RouteTrace, gains: Tensor | None = None) -> None:
        """Take in a training batch: set the biases that the budget controller wants.

        Units follow to the end if exits learn to the end. Units then save what exits spend by letting more images past.

        Args:
            step: The step.
            trace: The batch.
            gains: As in `Losses`.
        """
        if self.schedule.is_hard(step) and not self.network.stops_learn:
            return
        # All processes see the decisions of all, so that one price steers them all.
        margins = self.accelerator.gather(trace.margins.detach())
        gains = None if gains is None else self.accelerator.reduce(gains, "mean")
        self.network.set_bias(self.budget.observe(self.network.bias, margins, self.costs, step, gains))

    def check(self, step: int) -> None:
        """Every few steps, measure the realised cost of the next few images, and correct the budget controller."""
        config = self.schedule.config
        if step % config.check_every or not self._steers(step):
            return
        held_out = rotating(len(self.val), config.check_images, step // config.check_every, self.seed)
        self.realized = self._cost_of(self.val.subset(held_out)) / self.costs.dense
        self.budget.correct(self.realized, step)

    def freeze_units(self) -> None:
        """Freeze the routers of units, and meet the budget if nothing else learns to decide."""
        for bank in self.network.banks:
            bank.requires_grad_(not self.network.decides_at_units)
        if not self._learns_to_the_end:
            self._calibrate()

    def settle_rules(self) -> None:
        """Meet the budget without training, if rules alone decide."""
        if self.network.stops and not self.network.decides_at_units and not self._learns_to_the_end:
            self._calibrate()

    def measure(self, step: int) -> Evaluation:
        """Evaluate all held-out images at the end of an epoch. First meet the budget, if nothing learns to decide.

        Raises:
            TrainingError: Some weights are not finite any more.
        """
        lost = [name for name, value in self.network.state_dict().items() if not value.isfinite().all()]
        if lost:
            raise TrainingError(
                f"{lost[0]} became NaN or infinite before step {step}; the last good state is kept: start over "
                "with force=True and a lower training.learning_rate or training.router_learning_rate"
            )
        learns = self._learns_to_the_end and step < self.schedule.steps
        # Rules with a budget for everything let all images go on, as they do at first.
        decides = self.network.decides_at_units or (self.network.stops and self.target < self.costs.dense)
        if decides and self.schedule.is_hard(step) and not learns:
            self._calibrate()
        return evaluate(self.network, self.val, self.costs, gate=self.gate)

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        return {"budget": asdict(self.budget), "realized": self.realized}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.budget, self.realized = type(self.budget)(**state["budget"]), state["realized"]

    def _begin(self, share: float) -> BudgetController:
        """Build the budget controller for a target that is a share of the dense cost."""
        network, config, anneal = self.network, self.schedule.config, self.schedule.anneal_steps
        if config.gate == "benefit" and network.decides_at_units:
            ruled = tuple(not each.learns for each in network.deciders)
            return PriceController(share, anneal, congestion=config.congestion, ruled=ruled)
        if network.stops_learn and not network.decides_at_units:
            return ExitPriceController(share, anneal)
        return CostWeightController(share, anneal, anneal_from=self.schedule.anneal_from)

    def _steers(self, step: int) -> bool:
        """Whether the budget controller acts on what still learns to decide."""
        return self.network.stops_learn or (self.network.decides_at_units and not self.schedule.is_hard(step))

    @property
    def _learns_to_the_end(self) -> bool:
        """Whether something learns to decide in the last phase."""
        return self.network.stops_learn

    def _cost_of(self, images: Images) -> float:
        """Measure the mean realised cost of images, MACs: the mean over processes, for all of them."""
        cost = evaluate(self.network, images, self.costs, gate=self.gate).cost
        return float(self.accelerator.reduce(torch.tensor(cost, device=self.accelerator.device), "mean"))

    def _calibrate(self) -> None:
        """Meet the budget on all held-out images. If it cannot be met, say so and keep the nearest cost."""
        try:
            cost = self._meet()
        except InputError as error:
            # The network is still of use for other budgets.
            self.say(str(error))
            cost = evaluate(self.network, self.val, self.costs, gate=self.gate).cost
        self.realized = cost / self.costs.dense

    def _meet(self) -> float:
        """Meet the budget by the biases -> the cost of all held-out images, MACs."""
        share = self.budget.cost_share(self.costs)
        return calibrate(self.network, self.val, self.costs, self.target, cost_share=share, gate=self.gate)
