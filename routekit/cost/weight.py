"""Meet a budget by the weight of the cost in the objective: mu of Eq. 9 of Wang et al."""

from dataclasses import dataclass

from routekit.cost.controller import BudgetController


@dataclass
class CostWeightController(BudgetController):
    """Adapts the weight of the cost term.

    "To control the computational cost precisely, the weight of the cost controlling loss is adjusted adaptively"
    (Wang et al., section 4.1). The paper does not give the rule. This is dual ascent with a proportional term: the
    weight integrates the excess of the realised over the wanted cost, and answers the present excess at once. Costs are
    fractions of the dense cost, so one pair of gains fits every network.

    Attributes:
        integral: The weight gained per update and unit of excess.
        proportional: The weight per unit of present excess.
        weight: The integrated weight. It never falls below 0, so cost is never rewarded.
        excess: The running mean of the last excesses. The mean reduces the noise of small samples.
    """

    integral: float = 1.0
    proportional: float = 10.0
    weight: float = 0.0
    excess: float = 0.0

    @property
    def cost_weight(self) -> float:
        """The weight in force."""
        return max(0.0, self.weight + self.proportional * self.excess)

    def correct(self, realized: float, step: int) -> None:
        """Integrate the excess of held-out images over the wanted cost."""
        excess = realized - self.wanted(step)
        self.excess = 0.5 * self.excess + 0.5 * excess
        self.weight = max(0.0, self.weight + self.integral * excess)
