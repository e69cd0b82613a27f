"""Skip junctions: a router in front of each residual unit. Does it run for this image, or only its shortcut?"""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.unit import Sink
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction, junctions


@junctions.register("skip")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Skip(Junction):
    """Units are skipped, as in SkipNet and in Wang et al., "Dynamic Routing with Path Diversity and Consistency"."""

    about: ClassVar[str] = "which units run"
    cheapest: ClassVar[str] = "every unit skipped"
    draws: ClassVar[bool] = True

    def attach(self, draft: Draft) -> None:
        """Let each unit that has a shortcut be skipped. Raises InputError where no unit has one."""
        units = [unit for unit in draft.view.units if unit.skippable and not unit.dropped]
        if not units:
            raise InputError(f"{draft.view.spec.full_name} has no unit that can be skipped: take junctions=exit alone")
        for unit in units:
            unit.sinks = (*unit.sinks, Sink.SKIP)
