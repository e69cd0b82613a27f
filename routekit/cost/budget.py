"""The budget: what the user asks for, and the controller that makes the realised cost land on it."""

import math
import re
from dataclasses import dataclass

from routekit.cost.macs import CONVENTION, describe
from routekit.cost.model import CostModel
from routekit.errors import InputError

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def parse_target(text: str, cost: CostModel) -> float:
    """`1.5e8`, `150M`, `0.15G` or `60%` (of the dense cost) -> MACs.

    Raises InputError if it is no such number, or under the reachable minimum or over the dense cost.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmg%]?)\s*", text, flags=re.IGNORECASE)
    try:
        number = float(match.group(1)) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise InputError(f"target {text!r} is no cost: write 1.5e8, 150M or 60% ({CONVENTION})")
    suffix = match.group(2).upper()
    target = number / 100 * cost.dense if suffix == "%" else number * _SUFFIX[suffix]
    if not cost.minimum <= target <= cost.dense:
        raise InputError(
            f"target {text} = {describe(target)} is out of reach: this network can cost from {describe(cost.minimum)}, "
            f"every unit skipped, to {describe(cost.dense)}, the dense network "
            f"({math.ceil(100 * cost.minimum / cost.dense)}% to 100%)"
        )
    return target


@dataclass
class BudgetController:
    """Adapts the weight mu of the cost term so that the realised cost follows a falling target.

    "To control the computational cost precisely, the weight of the cost controlling loss is adjusted adaptively"
    (Wang et al., section 4.1, which does not say how). This is dual ascent with a proportional term: the weight
    integrates the excess of the realised over the wanted cost, and reacts to the present excess at once. All costs
    here are fractions of the dense cost, so one pair of gains serves every network.

    target:       the budget
    anneal_steps: steps over which the wanted cost falls from the dense cost to the target
    integral:     weight gained per update and unit of excess
    proportional: weight per unit of present excess
    weight:       the integrated weight; it never falls below 0, cost is never rewarded
    excess:       running mean of the last excesses, to calm the noise of small samples
    """

    target: float
    anneal_steps: int
    integral: float = 1.0
    proportional: float = 10.0
    weight: float = 0.0
    excess: float = 0.0

    def wanted(self, step: int) -> float:
        """The cost wanted at `step`: a straight line from 1 to the target."""
        done = min(1.0, step / self.anneal_steps) if self.anneal_steps > 0 else 1.0
        return 1.0 + (self.target - 1.0) * done

    def update(self, realized: float, step: int) -> float:
        """Take in the realised cost (a fraction of dense) at `step`; return the cost term's weight for the next one."""
        excess = realized - self.wanted(step)
        self.excess = 0.5 * self.excess + 0.5 * excess
        self.weight = max(0.0, self.weight + self.integral * excess)
        return self.current

    @property
    def current(self) -> float:
        """The weight in force."""
        return max(0.0, self.weight + self.proportional * self.excess)
