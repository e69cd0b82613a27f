"""Targets in words: what the user asks for, and what a network can cost."""

import math
import re
from dataclasses import dataclass

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.macs import CONVENTION, describe

# When a network costs the least, where nobody says it better.
CHEAPEST = "by its cheapest route"

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def parse_amount(text: str, dense: float) -> float:
    """`1.5e8`, `150M`, `0.15G` or `60%` (of `dense` MACs) -> MACs. Raises InputError if it is no such number."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmg%]?)\s*", text, flags=re.IGNORECASE)
    try:
        number = float(match.group(1)) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise InputError(f"target {text!r} is no cost: write 1.5e8, 150M or 60% ({CONVENTION})")
    suffix = match.group(2).upper()
    return number / 100 * dense if suffix == "%" else number * _SUFFIX[suffix]


class OutOfReachError(InputError):
    """A budget that a network cannot meet; `limit` says in a few words what it can."""

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True)
class Reach:
    """What an image can cost on average, in MACs: from `least` to `most`, where the dense network costs `whole`.

    cheapest, dearest: in words, when that is
    pruner:            of a network that is pruned to its budget, what cannot be: "l1 cannot prune resnet20"
    who:               in words, what it is the reach of
    """

    least: float
    most: float
    whole: float
    cheapest: str = CHEAPEST
    dearest: str = "the dense network"
    pruner: str = ""
    who: str = "this network"

    def meet(self, text: str) -> float:
        """`1.5e8`, `150M` or `60%` -> MACs. Raises InputError if it is no cost, OutOfReachError if it cannot be met."""
        return self.check(parse_amount(text, self.whole), f"target {text} = ")

    def check(self, target: float, said: str = "") -> float:
        """`target` in MACs, which was `said` so. Raises OutOfReachError if it cannot be met."""
        low, high = math.ceil(100 * self.least / self.whole), math.floor(100 * self.most / self.whole)
        if self.pruner and target < self.least:
            raise OutOfReachError(
                f"{self.pruner} to {describe(target)}: at least {describe(self.least)} ({low}%) is left",
                f"{self.pruner} below {low}%",
            )
        if not self.least <= target <= self.most:
            least, most = f"at least {low}%, {self.cheapest}", f"at most {high}%, {self.dearest}"
            raise OutOfReachError(
                f"{said}{describe(target)} is out of reach: {self.who} can cost from {describe(self.least)}, "
                f"{self.cheapest}, to {describe(self.most)}, {self.dearest} ({low}% to {high}%)",
                f"it costs {least if target < self.least else most}",
            )
        return target


def parse_target(text: str, cost: CostTable, dense: float | None = None) -> float:
    """`1.5e8`, `150M`, `0.15G` or `60%` (of the dense cost) -> MACs.

    `dense` is what the dense network costs, if not all of it is in what is routed: it was pruned, or compacted.
    Raises InputError if it is no such number, or under the reachable minimum or over the cost without routing.
    """
    return reach_of_costs(cost, dense).meet(text)


def reach_of_costs(cost: CostTable, dense: float | None = None, cheapest: str = CHEAPEST) -> Reach:
    """What routes can cost; `dense` is what the dense network costs, if not all of it is in what is routed."""
    dearest = "the dense network" if dense in (None, cost.dense) else "all that is left of it"
    return Reach(cost.minimum, cost.dense, dense or cost.dense, cheapest, dearest)
