"""What steers the realised cost of a network in training to its budget."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from routekit.cost.table import CostTable


@dataclass
class BudgetController(ABC):
    """Steers the realised cost along a wanted cost that falls to the target. All costs are fractions of the dense one.

    Its fields are all that a resumed run needs.

    Attributes:
        target: The budget.
        anneal_steps: The steps over which the wanted cost falls from the dense cost to the target.
        anneal_from: The step at which it begins to fall.
    """

    target: float
    anneal_steps: int
    anneal_from: int = field(default=0, kw_only=True)

    def wanted(self, step: int) -> float:
        """Return the cost wanted at `step`: 1, then a straight line from 1 to the target."""
        since = step - self.anneal_from
        done = min(1.0, max(0, since) / self.anneal_steps) if self.anneal_steps > 0 else float(since >= 0)
        return 1.0 + (self.target - 1.0) * done

    @property
    def cost_weight(self) -> float:
        """The weight in force of the cost in the objective: mu of Eq. 9 of Wang et al."""
        return 0.0

    def k_cpt(self, costs: CostTable) -> float:
        """Return the price in force of one unit of cost, in units of the loss (Eq. 2 of McGill and Perona)."""
        return self.cost_weight / costs.dense

    def cost_share(self, costs: CostTable) -> Tensor:
        """Return the price `[columns]` of each column if a unit has price 1 on average (`CostTable.cost_share`)."""
        return costs.cost_share

    def observe(
        self, bias: Tensor, margins: Tensor, costs: CostTable, step: int, gains: Tensor | None = None
    ) -> Tensor:
        """Take in a training batch.

        Args:
            bias: `[columns]`, under which the batch decided.
            margins: `[B, columns]`, its margins.
            costs: The cost table.
            step: The step.
            gains: `[stops]`, by how much the mean error falls from each stop to the end. None without stops.

        Returns:
            The next bias, `[columns]`.
        """
        del margins, costs, step, gains
        return bias

    @abstractmethod
    def correct(self, realized: float, step: int) -> None:
        """Take in a measurement on held-out images.

        Args:
            realized: Their mean realised cost, a fraction of the dense one.
            step: The step.
        """


@dataclass
class GivenPrices(BudgetController):
    """For a network that learns at given prices. The price that meets the budget is found afterwards."""

    def correct(self, realized: float, step: int) -> None:
        """Do nothing."""
