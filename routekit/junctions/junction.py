"""What a junction is: a config that attaches itself to a program, and the registry of all kinds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar, cast

from routekit.backbones.unit import Backbone
from routekit.errors import InputError
from routekit.network.heads import Place, places
from routekit.network.program import Head, Stem, Step, Units, View
from routekit.registry import Registry
from routekit.routing.router import JunctionShape, RouterBank, RouterConfig, build_bank


class Junction:
    """The config of a way of routing. A subclass is one file: its settings, `attach`, and the words for help.

    Attributes:
        kind: The name by which it is registered.
        about: What is decided, for the help: "which units run".
        cheapest: When a network with it costs least: "every unit skipped". Empty if other junctions determine that.
        rank: Junctions of units (0) are attached first, then those along the way (1), before (2) and behind (3) the
            pass.
        learns: What training changes: "all" of the network, or what was "added" alone, where that has its own weights.
        policies: Whether it is decided by a policy of exits.
        draws: Whether the decisions of its units can be drawn, and rewarded.
        halts: Whether scores that the units make themselves decide, so that no gate relaxes anything.
        by_position: Whether each position of the features decides, too.
        former: What networks have that were saved before there was such a setting.
    """

    kind: ClassVar[str] = ""
    about: ClassVar[str] = ""
    cheapest: ClassVar[str] = ""
    rank: ClassVar[int] = 0
    learns: ClassVar[str] = "all"
    policies: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    halts: ClassVar[bool] = False
    by_position: ClassVar[bool] = False
    former: ClassVar[Mapping[str, Any]] = {}

    def sized(self, budget: float, view: Backbone) -> "Junction":
        """Choose what is "auto".

        Args:
            budget: The mean cost, as a share of that of `view`.
            view: The network.

        Returns:
            The junction with all its settings.
        """
        del budget, view
        return self

    def check(self, others: Sequence["Junction"]) -> None:
        """Raise InputError if it does not go together with `others`, of which it is one."""

    def attach(self, draft: "Draft") -> None:
        """Add the junction to a program. Raises InputError for a network that it does not fit."""
        raise NotImplementedError


J = TypeVar("J")


class JunctionRegistry(Registry[type[Junction]]):
    """All kinds of junctions. A kind has the name by which it is registered."""

    def register(self, name: str) -> Callable[[J], J]:
        """Register the decorated config under `name`."""

        def enter(entry: J) -> J:
            cast(Any, entry).kind = name
            return super(JunctionRegistry, self).register(name)(entry)

        return enter

    def in_order(self, kinds: Sequence[str]) -> list[str]:
        """The kinds in the order in which they are attached."""
        return sorted(dict.fromkeys(kinds), key=lambda kind: self[kind].rank)

    def settings_of(self, kind: str) -> list[str]:
        """The names of the settings of a kind."""
        return [each.name for each in fields(cast(Any, self[kind]))]


junctions = JunctionRegistry("junction")


@dataclass
class Draft:
    """A program in the making, to which junctions are attached.

    Attributes:
        view: The network, whose units are the draft's own.
        routers: How routers of units are built.
        priced: Whether what decides gets the price of computing as a feature.
        steps: The program so far.
        bank: The routers of the units, once they are built.
        paths: How many paths there are behind each unit; 1 where it is not said.
        finishers: Called once all junctions are attached.
    """

    view: Backbone
    routers: RouterConfig
    priced: bool = False
    steps: list[Step] = field(default_factory=list)
    bank: RouterBank | None = None
    paths: dict[str, int] = field(default_factory=dict)
    finishers: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with one pass, in which nothing is decided, unless there is a program already."""
        view = self.view
        seen = View(view.spec, resolution=view.resolution)
        self.steps = self.steps or [seen, Stem(view), Units(view, view.units), Head(view)]

    @cached_property
    def places(self) -> list[Place]:
        """What lies before the first unit, and after each."""
        return places(self.view)

    def place_after(self, name: str) -> Place:
        """The place after a unit."""
        return next(place for place in self.places[1:] if place.after == name)

    def build_routers(self) -> None:
        """Build the routers of the units about which something is decided, if that is not done."""
        deciding = [unit for unit in self.view.units if unit.decides]
        if self.bank is None and deciding:
            before = zip(self.view.units, self.places, strict=False)
            image = self.view.spec.input_size[0]
            shapes = [
                JunctionShape(place.channels, unit.stage, len(unit.sinks), image)
                for unit, place in before
                if unit.decides
            ]
            self.bank = build_bank(shapes, self.routers, priced=self.priced)

    def insert_after(self, name: str, steps: Sequence[Step]) -> None:
        """Insert steps into the network's own pass.

        Args:
            name: The unit that they follow.
            steps: The steps.

        Raises:
            InputError: The network has no such unit.
        """
        for at, step in enumerate(self.steps):
            if isinstance(step, Units) and step.form is self.view and any(unit.name == name for unit in step.units):
                place = [unit.name for unit in step.units].index(name) + 1
                parts = [replace(step, units=part) for part in (step.units[:place], step.units[place:])]
                self.steps[at : at + 1] = [parts[0], *steps, parts[1]]
                return
        raise InputError(f"{self.view.spec.full_name} has no unit {name!r}")

    def finish(self) -> list[Step]:
        """Return the program, in which all units in a row have their routers."""
        self.build_routers()
        for finisher in self.finishers:
            finisher()
        first = 0
        for step in self.steps:
            if isinstance(step, Units) and step.form is self.view and any(unit.decides for unit in step.units):
                step.routers, step.first = self.bank, first
                first += len(step.deciding)
        return self.steps
