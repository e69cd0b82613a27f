"""Branch junctions: what a unit computes for an image that does not need all of it."""

import copy
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.narrow import narrow
from routekit.backbones.unit import Backbone, Sink

# The cost of a network whose every unit is narrow, as a share of the budget, where nobody says how narrow: what is left
# of the budget is for the images that need more.
NARROW = 0.6
AUTO: Literal["auto"] = "auto"


def narrow_for(budget: float) -> float:
    """How narrow to make what is asked first, where the mean cost is to be the share `budget` of the dense network's.

    The cost of a narrow unit is its share of the inner channels, or less. Budgets that no network can meet have a
    narrow form, too, by which to say so.
    """
    return max(round(NARROW * min(budget, 1.0), 2), 0.01)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class BranchConfig:
    """What the units of a network are given beside themselves.

    keep:        the share of its inner channels that each narrow branch of a unit has, the widest first; its weights
                 are the unit's own; "auto" for one branch that fits the budget
    candidates:  how many copies of the unit there are beside it, with weights of their own, among which images are
                 routed as in Dynamic Routing Networks (Cai et al., 2021)
    forks:       at which units paths part that never meet again, as in the branching networks of McGill and Perona
                 (2017, section 5.4): "stages" (the first of each stage but the first), or names separated by commas;
                 "" for nowhere. There are no other branches beside them
    spread:      how much the paths behind a fork differ in the beginning: the standard deviation of the noise in their
                 weights, as a share of the weights' own
    """

    keep: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | Literal["auto"] = AUTO
    candidates: Annotated[int, Field(ge=0)] = 0
    forks: str = ""
    spread: Annotated[float, Field(ge=0)] = 0.1

    def __post_init__(self) -> None:
        """Raise ValueError for no branch at all, narrow ones out of order, or others beside forks."""
        if self.forks and (self.candidates or self.keep not in (AUTO, ())):
            raise ValueError("behind forks units have no other branches: leave keep and candidates out")
        if not self.keep and not self.candidates and not self.forks:
            raise ValueError("branches are narrow (keep), candidates, or forks: give at least one")
        if not isinstance(self.keep, str) and list(self.keep) != sorted(set(self.keep), reverse=True):
            raise ValueError("narrow branches go from the widest to the narrowest: keep: [0.6, 0.3]")

    def sized(self, budget: float) -> "BranchConfig":
        """The same, for a mean cost of the share `budget` of the dense network's where that is left open."""
        if not isinstance(self.keep, str):
            return self
        return replace(self, keep=() if self.forks else (narrow_for(budget),))


def give_branches(view: Backbone, config: BranchConfig, *, skips: bool) -> None:
    """Give the units of `view` their branches; where none is skipped, the last one is taken by default.

    A unit that always takes a narrow branch is a pruned unit: channel pruning is the static case of such a network.
    Raises InputError for blocks without a narrow form.
    """
    for unit in view.units:
        if unit.skippable or unit.branchable:
            copies = [copy.deepcopy(unit.block) for _ in range(config.candidates)]
            slices = [narrow(unit.block, float(keep), view.step or 1) for keep in config.keep]
            unit.sinks = (Sink.RUN, *copies, *slices, *[Sink.SKIP] * (skips and unit.skippable))
