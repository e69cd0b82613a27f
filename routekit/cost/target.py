"""Targets in words: what the user wants, and what a network can cost."""

import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.macs import CONVENTION, describe
from routekit.network.pricing import AUTO

# The route that costs the least, in words.
CHEAPEST = "by its cheapest route"

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}


def parse_amount(text: str, dense: float) -> float:
    """Turn a cost in words into a number.

    Args:
        text: `1.5e8`, `150M`, `0.15G`, or `60%` of the dense network's cost.
        dense: The dense network's cost, MACs.

    Returns:
        The cost, MACs.

    Raises:
        InputError: The text is no such number, or a cost that no network has.
    """
    number = r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)"
    match = re.fullmatch(rf"\s*{number}\s*([kmg%]?)\s*", text, flags=re.IGNORECASE)
    if match is None or not math.isfinite(float(match[1])):
        raise InputError(f"target {text!r} is no cost: write 1.5e8, 150M or 60% ({CONVENTION})")
    suffix = match[2].upper()
    amount = float(match[1]) / 100 * dense if suffix == "%" else float(match[1]) * _SUFFIX[suffix]
    if not 0 < 2 * amount < math.inf:  # the other convention counts twice as much
        raise InputError(f"target {text!r} is no cost: write 1.5e8, 150M or 60% ({CONVENTION})")
    if not suffix and 1 <= amount <= 100:
        raise InputError(f"target {text} is {amount:g} multiply-adds: for a share of the dense cost, write {text}%")
    return amount


def _cost(words: str) -> str:
    if words != AUTO:
        try:
            parse_amount(words.rpartition(":")[2], 1e9)
        except InputError as error:
            raise PydanticCustomError("cost", "{said}", {"said": str(error)}) from None
    return words


# A setting: a cost in words, perhaps behind how a form is made ("l1:25%"). What it is of a network is yet unknown.
Cost = Annotated[str, AfterValidator(_cost)]


class OutOfReachError(InputError):
    """A network cannot meet a budget. `limit` states in a few words what it can cost."""

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True)
class Reach:
    """What an image can cost on average, MACs.

    Attributes:
        least: The least mean cost.
        most: The largest mean cost.
        whole: The cost of the dense network.
        cheapest: When the cost is the least, in words.
        dearest: When it is the largest, in words.
        pruner: What is impossible for a network that is pruned to its budget: "l1 cannot prune resnet20".
        who: Whose reach it is, in words.
    """

    least: float
    most: float
    whole: float
    cheapest: str = CHEAPEST
    dearest: str = "the dense network"
    pruner: str = ""
    who: str = "this network"

    def meet(self, text: str) -> float:
        """Turn a target in words into MACs.

        Raises:
            InputError: It is no cost (`parse_amount`).
            OutOfReachError: It cannot be met.
        """
        return self.check(parse_amount(text, self.whole), f"target {text} = ")

    def check(self, target: float, said: str = "") -> float:
        """Check a target.

        Args:
            target: The mean cost, MACs.
            said: What the user wrote, to begin the message of the error with.

        Returns:
            The target.

        Raises:
            OutOfReachError: It cannot be met.
        """
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
    """Turn a target in words into MACs.

    Args:
        text: `1.5e8`, `150M`, `0.15G`, or `60%` of the dense network's cost.
        cost: The cost table of the network.
        dense: The dense network's cost, if the routed network was pruned or compacted.

    Returns:
        The mean cost, MACs.

    Raises:
        InputError: It is no cost.
        OutOfReachError: It is under the least that routes can cost, or over the cost without routing.
    """
    return reach_of_costs(cost, dense).meet(text)


def reach_of_costs(cost: CostTable, dense: float | None = None, cheapest: str = CHEAPEST) -> Reach:
    """Find what routes can cost.

    Args:
        cost: The cost table of the network.
        dense: The dense network's cost, if the routed network was pruned or compacted.
        cheapest: When the cost is the least, in words.

    Returns:
        The reach.
    """
    dearest = "the dense network" if dense in (None, cost.dense) else "all that is left of it"
    return Reach(cost.minimum, cost.dense, dense or cost.dense, cheapest, dearest)
