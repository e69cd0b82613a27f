"""Branch junctions: what a unit computes for an image that does not need all of it."""

import copy
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.narrow import narrow
from routekit.backbones.unit import Backbone, Sink
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.network.forms import narrow_for
from routekit.network.pricing import AUTO


@junctions.register("branch")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Branch(Junction):
    """Units run in full or narrow, or images choose among copies of them (Dynamic Routing Networks, Cai et al., 2021).

    Attributes:
        width: The share of its inner channels that each narrow branch of a unit has, the widest first. Its weights are
            the unit's own. "auto" is one branch that fits the budget.
        candidates: How many copies of the unit there are beside it, with weights of their own.
    """

    about: ClassVar[str] = "which units run in full, and which narrow"
    cheapest: ClassVar[str] = "every unit narrow"
    draws: ClassVar[bool] = True

    width: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | Literal["auto"] = AUTO
    candidates: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        """Raise ValueError for no branch at all, or narrow ones out of order."""
        if not self.width and not self.candidates:
            raise ValueError("branches are narrow (width) or candidates: give at least one")
        if not isinstance(self.width, str) and list(self.width) != sorted(set(self.width), reverse=True):
            raise ValueError("narrow branches go from the widest to the narrowest: width: [0.6, 0.3]")

    def sized(self, budget: float, view: Backbone) -> "Branch":
        """Choose a width that fits the budget, where it is "auto"."""
        del view
        return replace(self, width=(narrow_for(budget),)) if self.width == AUTO else self

    def attach(self, draft: Draft) -> None:
        """Give each unit its branches; where it is not skipped, the last one is the default.

        A unit that always takes a narrow branch is a pruned unit: channel pruning is the static case of such a network.

        Raises InputError for blocks without a narrow form.
        """
        assert not isinstance(self.width, str)  # it is sized before
        for unit in draft.view.units:
            if (unit.skippable or unit.branchable) and not unit.dropped:
                copies = [copy.deepcopy(unit.block) for _ in range(self.candidates)]
                slices = [narrow(unit.block, float(width), draft.view.step or 1) for width in self.width]
                unit.sinks = (Sink.RUN, *copies, *slices, *unit.sinks[1:])
