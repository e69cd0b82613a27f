"""What steers the realised cost of a network in training to its budget."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from routekit.cost.table import CostTable


@dataclass
class BudgetController(ABC):
    """Steers the realised cost along a wanted cost that falls to the target. All costs are fractions of the dense one.

    Attributes:
        target: The budget.
        anneal_steps: The steps over which the wanted cost falls from the dense cost to the target.
    """

    target: float
    anneal_steps: int

    def wanted(self, step: int) -> float:
        """Return the cost wanted at `step`: a straight line from 1 to the target."""
        done = min(1.0, step / self.anneal_steps) if self.anneal_steps > 0 else 1.0
        return 1.0 + (self.target - 1.0) * done

    @property
    def cost_weight(self) -> float:
        """The weight in force of the cost in the objective."""
        return 0.0

    def k_cpt(self, costs: CostTable) -> float:
        """Return the price in force of one unit of cost, in units of the loss (Eq. 2 of McGill and Perona)."""
        return self.cost_weight / costs.dense

    def cost_share(self, costs: CostTable) -> Tensor:
        """Return how a price per unit is shared out over units and stops: `CostTable.cost_share`, in these prices."""
        return costs.cost_share

    def observe(
        self,
        bias: Tensor,
        margins: Tensor,  # noqa: ARG002
        costs: CostTable,  # noqa: ARG002
        step: int,  # noqa: ARG002
        gains: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Take in a training batch.

        Args:
            bias: `[columns]`, under which the batch decided.
            margins: `[B, columns]`, its margins.
            costs: The cost table.
            step: The step.
            gains: `[stops]`, by how much the batch's mean error falls from each stop to the end of the network.

        Returns:
            The next bias, `[columns]`.
        """
        return bias

    @abstractmethod
    def correct(self, realized: float, step: int) -> None:
        """Take in the realised cost of held-out images at `step`."""

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs: the fields, to build the controller from again."""
        return asdict(self)


@dataclass
class GivenPrices(BudgetController):
    """For a network that learns at given prices: the one that meets the budget is found afterwards."""

    def correct(self, realized: float, step: int) -> None:
        """Leave everything as it is."""
