"""What a route costs. Every step of a program is measured once, and an image pays for what it executes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit, evaluating, example_input
from routekit.backbones.walk import walk
from routekit.cost.meter import MACS, Meter
from routekit.network.forward import seen
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Interpreter, Stem, Stop, Units, View
from routekit.routing.decision import Layout, RouteTrace
from routekit.routing.router import RouterBank


@dataclass(frozen=True)
class Part:
    """One line of the cost table.

    Attributes:
        name: The name of the part.
        kind: "stem", "unit", "head" or "exit".
        cost: In the table's unit.
        skippable: Whether an image can do without it.
    """

    name: str
    kind: str
    cost: float
    skippable: bool


@dataclass(frozen=True)
class CostTable:
    """The cost table of a routed network, for one image.

    An image pays for the units that it runs, for the shortcuts of those that it skips, and for its routers. These score
    at the beginning of each group of junctions (`Units.groups`), and again after each unit that changes the features.
    That is what sparse execution executes. Stops divide the program into sections. An image pays for a section only if
    it goes on past the stops before it.

    Attributes:
        parts: What the program runs, in order.
        dense: The cost of the network that answers last, without routing.
        extra: `[columns]`, how much dearer each sink of each unit is than its default; 0 for stops.
        base: `[sections]`, what each section costs if all that can be skipped in it is skipped: other units, shortcuts,
            one survey by the routers of each group, stems, heads, classifiers and stops.
        layout: What the columns of a route are.
        unit: The unit of all costs.
        uncounted: Operators that the meter cannot count. Their cost is taken as 0.
    """

    parts: tuple[Part, ...]
    dense: float
    extra: Tensor
    base: Tensor
    layout: Layout
    unit: str = MACS.unit
    uncounted: tuple[str, ...] = ()

    @classmethod
    @torch.no_grad()
    def measure(cls, network: RoutedNetwork, meter: Meter = MACS) -> "CostTable":
        """Run one blank image through the steps of a network and measure each.

        Args:
            network: The network.
            meter: What measures.

        Returns:
            The table, in the unit of the meter.
        """
        state = _Charging(network, meter, example_input(network.view))
        dense = replace(state, parts=[], base=[0.0])  # both share what is measured
        with evaluating(network):
            charge(network.steps, state)
            charge(network.without_routing().steps, dense)
        return cls(
            parts=tuple(state.parts),
            dense=sum(part.cost for part in dense.parts),
            extra=torch.tensor(state.extra, dtype=torch.float64),
            base=torch.tensor(state.base, dtype=torch.float64),
            layout=network.layout,
            unit=meter.unit,
            uncounted=tuple(sorted(state.uncounted)),
        )

    @property
    def fullest(self) -> Tensor:
        """`[junctions]`, the extra cost of the dearest sink of each junction, its first; 0 for stops."""
        return self.extra[[columns.start for columns in self.layout.junctions]]

    @property
    def typical(self) -> float:
        """The mean of what a unit costs over its default; the mean cost of a part if all units have cost 0."""
        full = self.fullest[[not stop for stop in self.layout.is_stop]]
        return float(full.mean()) if float(full.sum()) > 0 else self.dense / len(self.parts)

    @property
    def cost_share(self) -> Tensor:
        """`[columns]`, what each column costs if a unit costs 1 on average.

        The dearest sink of a unit costs 1, and the others a share of that. Going on past a stop costs the section
        behind it with all of its units. Sinks that cost no more than the default, as copies do, cost 0.
        """
        layout, share = self.layout, torch.zeros_like(self.extra)
        behind = self.base.clone()
        for columns, stops, full in zip(layout.junctions, layout.is_stop, self.fullest, strict=True):
            if not stops:
                behind[layout.sections[columns.start]] += full
                share[columns] = self.extra[columns] / full if full > 0 else 0.0
        share[list(layout.stops)] = behind[1:] / self.typical
        return share

    @property
    def minimum(self) -> float:
        """The least that a route can cost: it skips every unit and takes the first stop."""
        return float(self.base[0])

    @property
    def maximum(self) -> float:
        """The most that a route can cost: it runs every unit, with a survey after each, and takes no stop."""
        dearest = [self.extra[columns].max() for columns in self.layout.junctions]
        return float(self.base.sum()) + float(sum(dearest))

    def expected(self, trace: RouteTrace) -> Tensor:
        """Return the cost `[B]` under relaxed gates: the sum of c_i r_i (Eq. 8 of Wang et al.), differentiable."""
        return self._of(trace.gates)

    def of_routes(self, routes: Tensor) -> Tensor:
        """Compute what routes cost, routers included.

        Args:
            routes: `[B, columns]`, bool; or in [0, 1], where positions of features decide (`RouteTrace.computed`).

        Returns:
            `[B]`, float64.
        """
        return self._of(routes.double())

    def _of(self, gates: Tensor) -> Tensor:
        reach = self.layout.reach(gates)
        there = gates * reach[:, list(self.layout.sections)]
        return reach @ self.base.to(gates) + there @ self.extra.to(gates)

    def of_sections(self, gates: Tensor) -> Tensor:
        """Gates `[B, columns]` -> what each section costs an image that reaches it `[B, sections]`, differentiable."""
        own = gates.new_zeros(len(gates), len(self.base))
        sections = torch.tensor(self.layout.sections, dtype=torch.int64, device=gates.device)
        return self.base.to(gates) + own.index_add(1, sections, gates * self.extra.to(gates))


@dataclass
class _Charging:
    """A blank image on its way through a program, and what has been measured.

    Attributes:
        measured: The costs that are measured, by kind. Units of one stage are alike, so each kind is measured once.
        x: The image as the view sees it, then the features.
        view: The image as the present view sees it.
        shared: The features that a stem has made for several forms.
        logits: The last classifier's.
        memory: The state of the routers.
    """

    network: RoutedNetwork
    meter: Meter
    image: Tensor
    parts: list[Part] = field(default_factory=list)
    extra: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=lambda: [0.0])
    uncounted: set[str] = field(default_factory=set)
    measured: dict[Any, float] = field(default_factory=dict)
    x: Tensor = field(init=False)
    view: Tensor = field(init=False)
    shared: Tensor = field(init=False)
    logits: Tensor = field(init=False)
    memory: Any = None

    def cost(self, call: Callable[..., Any], *inputs: Tensor, owner: nn.Module) -> float:
        """Measure `call(*inputs)`, which uses the parameters of `owner`."""
        cost, uncounted = self.meter.measure(call, inputs, owner)
        self.uncounted.update(uncounted)
        return cost

    def part(self, name: str, kind: str, cost: float) -> None:
        """Add a line to the table, for which every image that reaches it pays."""
        self.parts.append(Part(name, kind, cost, skippable=False))
        self.base[-1] += cost

    def of_unit(self, form: Backbone, unit: ResidualUnit, sink: int) -> float:
        """Measure one sink of a unit, unless one like it was measured."""
        # Blocks of the libraries whose repr is the same compute the same. Those of a user need not, and the shortcut of
        # a dropped unit does not lie in the block.
        alike = form.spec.source != "custom" and not unit.dropped
        block = repr(unit.block) if alike else (id(form.model), unit.name)
        key = (repr(unit.sinks[sink]), block, tuple(self.x.shape))
        if key not in self.measured:
            # Narrow forms and branches use the backbone's convolutions, which the tracer has to find in the owner.
            own = sink == 0 and form.model is self.network.backbone
            owner = unit.block if own else self.network
            self.measured[key] = self.cost(partial(unit.take, sink=sink), self.x, owner=owner)
        return self.measured[key]

    def of_survey(self, routers: RouterBank, junctions: range) -> float:
        """Measure a survey of `junctions`, unless one like it was measured."""
        # It depends on the shape of the features, on the number of junctions, and on whether there is a state.
        key = (id(routers), tuple(self.x.shape), len(junctions), self.memory is None)
        if key not in self.measured:
            self.measured[key] = self.cost(
                lambda x: routers.survey(junctions, x, self.memory)[0], self.x, owner=routers
            )
        return self.measured[key]


charge: Interpreter[_Charging] = Interpreter("cost")


@charge.on(View)
def _view(step: View, state: _Charging) -> None:
    # A view costs nothing: three channels of an image are few beside those of the features.
    state.x = state.view = seen(state.image, state.network.spec, step)


@charge.on(Stem)
def _stem(step: Stem, state: _Charging) -> None:
    state.memory = None
    if not step.shared:
        state.part("stem", "stem", state.cost(step.form.stem, state.x, owner=step.form.model))
        state.shared = step.form.stem(state.x)
    state.x = state.shared


@charge.on(Units)
def _units(step: Units, state: _Charging) -> None:
    routers, index = step.routers, step.first
    groups = {index: group for group in step.groups for index in group}
    if routers is not None and routers.sees_image and index == 0 and step.deciding:
        state.part("policy", "exit", state.cost(routers.policy, state.view, owner=routers))
        state.memory = routers.begin(state.view)
    for unit, x, after in walk(step.units, state.x):
        state.x = x
        name, run = f"{step.prefix}{unit.name}", state.of_unit(step.form, unit, 0)
        if unit.decides:
            assert routers is not None
            state.parts.append(Part(name, "unit", run, skippable=True))
            *others, default = (state.of_unit(step.form, unit, sink) for sink in range(1, len(unit.sinks)))
            survey = 0.0 if routers.sees_image else state.of_survey(routers, range(index, groups[index].stop))
            if index == groups[index].start:
                state.base[-1] += survey
            else:  # each sink of the unit before it but the default changes the features
                width = routers.width
                state.extra[-width:] = [cost + survey for cost in state.extra[-width:]]
            state.extra += [cost - default for cost in (run, *others)]
            state.base[-1] += default
            _, state.memory = routers(index, x, state.memory)
            index += 1
        else:
            state.part(name, "unit", run)
        state.x = after


@charge.on(Classify)
def _classify(step: Classify, state: _Charging) -> None:
    state.part(f"exit after {step.name}", "exit", state.cost(step.head, state.x, owner=step.head))
    state.logits = step.head(state.x).float()


@charge.on(Stop)
def _stop(step: Stop, state: _Charging) -> None:
    cost = state.cost(step.decider, state.x, state.logits, owner=step.decider)
    state.part(f"stop at {step.name}", "exit", cost)
    state.extra.append(0.0)
    state.base.append(0.0)


@charge.on(Head)
def _head(step: Head, state: _Charging) -> None:
    state.part("head", "head", state.cost(step.form.head, state.x, owner=step.form.model))
    state.logits = step.form.head(state.x).float()
