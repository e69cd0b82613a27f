"""What a route costs: every step of a program is measured once, an image pays for what it executes."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit, evaluating, example_input
from routekit.backbones.walk import walk
from routekit.cost.meter import MACS, Meter
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Interpreter, Stem, Stop, Units, View
from routekit.routing.decision import Layout, RouteTrace
from routekit.routing.router import RouterBank


@dataclass(frozen=True)
class Part:
    """One line of the cost table; `cost` in the table's unit. `kind` is stem, unit, head or exit."""

    name: str
    kind: str
    cost: float
    skippable: bool


@dataclass(frozen=True)
class CostTable:
    """The cost table of a routed network, for one image.

    An image pays for the units that it runs, for the shortcuts of those that it skips, and for its routers: they are
    asked at the beginning of each group of junctions, and again whenever a unit has changed the features
    (`Units.groups`). That is what sparse execution executes. Stops divide the program into sections. An image pays for
    a section only if it went on past the stops before it.

    Attributes:
        parts: What the program runs, in order.
        dense: The cost of the network that answers last, without routing.
        extra: `[columns]`, how much dearer each sink of each unit is than its default; 0 for stops.
        base: `[sections]`, what each section costs if all that can be skipped in it is: units that cannot be,
            shortcuts, asking the routers of each group once, stems, heads, classifiers and stops.
        layout: What the columns of a route are.
        unit: The unit of all costs.
        uncounted: Operators that the meter cannot count (taken as free).
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
        """Run one blank image through the steps of `network` and measure each."""
        state = _Charging(network, meter, example_input(network.view))
        with evaluating(network):
            charge(network.steps, state)
            dense = state.dense_of(network.without_routing().view)
        return cls(
            parts=tuple(state.parts),
            dense=dense,
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
        """What a unit costs over its default, on average; where no unit is worth a price, what a part of it costs."""
        full = self.fullest[[not stop for stop in self.layout.is_stop]]
        return float(full.mean()) if float(full.sum()) > 0 else self.dense / len(self.parts)

    @property
    def cost_share(self) -> Tensor:
        """`[columns]`, how a price per unit is shared out: 1 for a unit, for a stop what lies behind it.

        Of several sinks of a unit, each has its share of the dearest. Going on past a stop is as dear as the units that
        are to be run there. Sinks that cost nothing over the default, as copies do, have no price.
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
        """The least that a route can cost: every unit skipped, the first stop taken."""
        return float(self.base[0])

    @property
    def maximum(self) -> float:
        """The most that a route can cost: every unit run, the routers asked after each of them, no stop taken."""
        dearest = [self.extra[columns].max() for columns in self.layout.junctions]
        return float(self.base.sum()) + float(sum(dearest))

    def expected(self, trace: RouteTrace) -> Tensor:
        """Return the cost under relaxed gates, `[B]`, differentiable: the sum of c_i r_i (Eq. 8 of Wang et al.)."""
        return self._of(trace.gates)

    def realized(self, trace: RouteTrace) -> Tensor:
        """Return the cost of what hard routing executes, `[B]`, float64, routers included."""
        return self.of_routes(trace.routes)

    def of_routes(self, routes: Tensor) -> Tensor:
        """Routes `[B, columns]`, bool -> `[B]`, float64: what each costs."""
        return self._of(routes.double())

    def _of(self, gates: Tensor) -> Tensor:
        reach = self.layout.reach(gates)
        there = gates * reach[:, list(self.layout.sections)]
        return reach @ self.base.to(gates) + there @ self.extra.to(gates)

    def of_sections(self, gates: Tensor) -> Tensor:
        """Gates `[B, columns]` -> `[B, sections]`: what each section costs an image that gets there; differentiable."""
        own = gates.new_zeros(len(gates), len(self.base))
        sections = torch.tensor(self.layout.sections, dtype=torch.int64, device=gates.device)
        return self.base.to(gates) + own.index_add(1, sections, gates * self.extra.to(gates))


@dataclass
class _Charging:
    """A blank image on its way through a program, and what has been measured."""

    network: RoutedNetwork
    meter: Meter
    image: Tensor
    parts: list[Part] = field(default_factory=list)
    extra: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=lambda: [0.0])
    uncounted: set[str] = field(default_factory=set)
    # Units of one stage are alike: each kind is measured once.
    known: dict[Any, float] = field(default_factory=dict)
    x: Tensor = field(init=False)
    shared: Tensor = field(init=False)
    logits: Tensor = field(init=False)
    memory: Any = None

    def __post_init__(self) -> None:
        self.x = self.shared = self.image

    def cost(self, key: Any, call: Any, inputs: tuple[Any, ...], owner: nn.Module) -> float:
        """Measure a call, unless one of the same key was."""
        if key not in self.known:
            found = self.meter.measure(call, inputs, owner)
            self.known[key] = found.cost
            self.uncounted.update(found.uncounted)
        return self.known[key]

    def part(self, name: str, kind: str, cost: float, *, skippable: bool = False) -> None:
        """Note a line of the table, which everybody who gets here pays for unless it can be skipped."""
        self.parts.append(Part(name, kind, cost, skippable))
        self.base[-1] += 0.0 if skippable else cost

    def of_unit(self, form: Backbone, unit: ResidualUnit, sink: int) -> float:
        """What a unit costs by one of its sinks."""
        # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves out, and
        # what is left of dropped ones does not lie in the block. What is narrow has the backbone's convolutions: the
        # tracer has to see whose they are.
        alike = form.spec.source != "custom" and not unit.dropped
        kind = (repr(unit.block) if alike else (id(form.model), unit.name), tuple(self.x.shape))
        if sink == 0:
            owner = unit.block if form.model is self.network.backbone else self.network
            return self.cost(("run", *kind), unit.run, (self.x,), owner)
        return self.cost((repr(unit.sinks[sink]), *kind), partial(unit.take, sink=sink), (self.x,), self.network)

    def dense_of(self, form: Backbone) -> float:
        """What a network costs, about which nothing is decided."""
        self.x = example_input(form)
        total = self.cost(("stem", id(form.stem)), form.stem, (self.x,), form.model)
        walked = list(walk(form.units, form.stem(self.x)))
        for unit, x, _ in walked:
            self.x = x
            total += self.of_unit(form, unit, 0)
        self.x = walked[-1][2]
        return total + self.cost(("head", id(form.head)), form.head, (self.x,), form.model)


charge: Interpreter[_Charging] = Interpreter("cost")


@charge.on(View)
def _view(step: View, state: _Charging) -> None:  # noqa: ARG001 - however an image is seen, that is free
    state.x = state.image


@charge.on(Stem)
def _stem(step: Stem, state: _Charging) -> None:
    state.memory = None
    if step.shared:
        state.x = state.shared
        return
    state.part("stem", "stem", state.cost(("stem", id(step)), step.form.stem, (state.x,), step.form.model))
    state.x = state.shared = step.form.stem(state.x)


@charge.on(Units)
def _units(step: Units, state: _Charging) -> None:
    routers, index = step.routers, step.first
    ends = {index: group for group in step.groups for index in group}
    if routers is not None and routers.sees_image and index == 0 and step.deciding:
        asked = state.cost(("policy", id(routers)), routers.policy, (state.image,), routers)
        state.part("policy", "exit", asked)
        state.memory = routers.begin(state.image)
    walked = list(walk(step.units, state.x))
    for unit, x, _ in walked:
        state.x = x
        run = state.of_unit(step.form, unit, 0)
        name = f"{step.prefix}{unit.name}"
        if not unit.decides:
            state.part(name, "unit", run)
        else:
            assert routers is not None
            state.parts.append(Part(name, "unit", run, skippable=True))
            others = [state.of_unit(step.form, unit, sink) for sink in range(1, len(unit.sinks))]
            default = others.pop()
            # Asking depends on the features' shape, on how many are asked, and on whether there is a state.
            rest = range(index, ends[index].stop)
            key = ("ask", id(routers), tuple(state.x.shape), len(rest), state.memory is None)
            ask = _Ask(routers, rest, state.memory)
            asking = 0.0 if routers.sees_image else state.cost(key, ask, (state.x,), routers)
            fresh = index == ends[index].start
            if not fresh:  # whatever the unit before it made, it made new features of
                width = routers.width
                state.extra[-width:] = [cost + asking for cost in state.extra[-width:]]
            state.extra += [cost - default for cost in (run, *others)]
            state.base[-1] += default + (asking if fresh else 0.0)
            _, state.memory = routers(index, state.x, state.memory)
            index += 1
    state.x = walked[-1][2] if walked else state.x


@charge.on(Classify)
def _classify(step: Classify, state: _Charging) -> None:
    state.part(f"exit after {step.name}", "exit", state.cost(("exit", id(step)), step.head, (state.x,), step.head))
    state.logits = step.head(state.x).float()


@charge.on(Stop)
def _stop(step: Stop, state: _Charging) -> None:
    inputs = (state.x, state.logits)
    state.part(f"stop at {step.name}", "exit", state.cost(("stop", id(step)), step.decider, inputs, step.decider))
    state.extra.append(0.0)
    state.base.append(0.0)


@charge.on(Head)
def _head(step: Head, state: _Charging) -> None:
    state.part("head", "head", state.cost(("head", id(step)), step.form.head, (state.x,), step.form.model))
    state.logits = step.form.head(state.x).float()


class _Ask:
    """One survey, with the state that the junctions before it left, for the tracer."""

    def __init__(self, routers: RouterBank, junctions: range, state: Any) -> None:
        self.routers, self.junctions, self.state = routers, junctions, state

    def __call__(self, features: Tensor) -> Tensor:
        margins: Tensor = self.routers.survey(self.junctions, features, self.state)[0]
        return margins
