"""Branch junctions: what a unit computes for an image that does not need all of it."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.narrow import narrow
from routekit.backbones.unit import Backbone


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class BranchConfig:
    """What the units of a network are given beside themselves.

    keep:    the share of its inner channels that a unit's narrow branch has
    """

    keep: Annotated[float, Field(gt=0, lt=1)] = 0.4


def give_narrow_branches(view: Backbone, config: BranchConfig) -> None:
    """Give every skippable unit of `view` a narrow branch, taken where the unit would be skipped.

    A unit that always takes it is a pruned unit: channel pruning is the static case of such a network.
    Raises InputError for blocks without a narrow form.
    """
    for unit in view.units:
        if unit.skippable:
            unit.narrow = unit.shortcut = narrow(unit.block, config.keep).train(unit.block.training)
