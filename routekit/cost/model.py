"""What a route costs: every part of a network is measured once, a sample pays for the parts it executes."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating
from routekit.macs import Count, count
from routekit.network.convert import example_input
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import Layout, RouteTrace


@dataclass(frozen=True)
class Part:
    """One line of the cost table; `flops` in fvcore's unit."""

    name: str
    kind: str
    flops: int
    skippable: bool


@dataclass(frozen=True)
class CostModel:
    """The cost table of a routed network, for one image, in MACs.

    An image pays for the units that it runs, for the shortcuts of those that it skips, and for its routers: they are
    asked at the beginning of each group of junctions, and again whenever a unit has changed the features
    (`RoutedNetwork.groups`). That is what sparse execution executes.

    Exits divide a network into sections: an image pays for a section only if it went on past the exits before it. What
    is behind one at the end is the whole network once more.

    parts:   stem, units, head, in order, whose sum is the dense network's cost; and the exits, each where it lies
    run:     [columns] what each way through each unit costs but the default: running it in full, and its branches
    skip:    [n] what the default costs: the shortcut of a down-sampling unit, or a branch that always runs; else 0
    ask:     [n] what it costs to ask the routers from this junction to the end of its group about new features
    fresh:   [n] bool: the junction begins a group, so that its features are new whatever was decided before
    base:    [exits + 1] what each section costs if all that can be skipped in it is: units that cannot be, shortcuts,
             asking the routers of each group once, the exit that ends it; the stem, and the head
    layout:  what the columns of a route are
    uncounted: operators without a rule in fvcore (counted as 0): additions, pooling of some kinds
    """

    parts: tuple[Part, ...]
    run: Tensor
    skip: Tensor
    ask: Tensor
    fresh: Tensor
    base: Tensor
    layout: Layout
    uncounted: tuple[str, ...]

    @classmethod
    @torch.no_grad()
    def measure(cls, network: RoutedNetwork) -> "CostModel":
        """Run one blank image through the parts of `network` and count each with fvcore."""
        view = network.view
        with evaluating(network):
            parts: list[Part] = []
            run: list[int] = []
            skip: list[int] = []
            ask: list[int] = []
            ends = {index: group for group in network.groups for index in group}
            seen: dict[Any, Count] = {}  # units of one stage are alike: count each kind once
            uncounted: set[str] = set()

            def cost_of(key: Any, call: Any, inputs: tuple[Any, ...], owner: Any) -> int:
                if key not in seen:
                    seen[key] = count(call, inputs, owner)
                    uncounted.update(seen[key].uncounted)
                return seen[key].flops

            base = [0.0]
            x = example_input(view)
            parts.append(Part("stem", "stem", cost_of("stem", view.stem, (x,), view.model), skippable=False))
            base[-1] += parts[-1].flops
            x = view.stem(x)
            state: Any = None
            for unit in view.units:
                # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves
                # out, and what is left of dropped ones does not lie in the block. What is narrow has the backbone's
                # convolutions: the tracer has to see whose they are.
                alike = view.spec.source != "custom" and not unit.dropped
                kind = (repr(unit.block) if alike else unit.name, tuple(x.shape))
                parts.append(Part(unit.name, "unit", cost_of(("run", *kind), unit.run, (x,), unit.block), unit.decides))
                if unit.decides:
                    index = len(skip)
                    others = [
                        cost_of((repr(way), *kind), partial(unit.take, sink=sink), (x,), network)
                        for sink, way in enumerate(unit.sinks[1:], start=1)
                    ]
                    run += [parts[-1].flops, *others[:-1]]
                    skip.append(others[-1])
                    # Asking depends on the features' shape, on how many are asked, and on whether there is a state.
                    rest = range(index, ends[index].stop)
                    asked = ("ask", tuple(x.shape), len(rest), state is None)
                    ask.append(cost_of(asked, _Ask(network, rest, state), (x,), network.routers))
                    _, state = network.routers(index, x, state)
                    base[-1] += skip[-1] + (ask[-1] if index == ends[index].start else 0)
                else:
                    base[-1] += parts[-1].flops
                x = unit.run(x)
                leaving = network.exit_after(unit)
                if leaving is not None:
                    flops = cost_of(("exit", leaving.after), leaving, (x,), network)
                    parts.append(Part(f"exit after {unit.name}", "exit", flops, skippable=False))
                    base[-1] += flops
                    base.append(0.0)
            parts.append(Part("head", "head", cost_of("head", view.head, (x,), view.model), skippable=False))
            base[-1] += parts[-1].flops
            if network.looks_again:
                base[-1] += sum(part.flops for part in parts if part.kind != "exit")
        return cls(
            parts=tuple(parts),
            run=torch.tensor(run, dtype=torch.float64),
            skip=torch.tensor(skip, dtype=torch.float64),
            ask=torch.tensor(ask, dtype=torch.float64),
            fresh=torch.tensor([index == ends[index].start for index in range(len(skip))], dtype=torch.bool),
            base=torch.tensor(base, dtype=torch.float64),
            layout=network.layout,
            uncounted=tuple(sorted(uncounted)),
        )

    @property
    def dense(self) -> float:
        """The cost without routing: every unit that the network has, no router, no exit. Without dropped units."""
        return float(sum(part.flops for part in self.parts if part.kind != "exit"))

    @property
    def surplus(self) -> Tensor:
        """[columns] how much dearer each way through a unit is than its default: routers after it are asked again."""
        again = torch.where(self.fresh, 0.0, self.ask).roll(-1)
        return self.run + (again - self.skip).repeat_interleave(self.layout.width)

    @property
    def typical(self) -> float:
        """What a unit costs over its default, on average; where no unit is worth a price, what a part of it costs."""
        full = self.surplus[:: self.layout.width]
        return float(full.mean()) if float(full.sum()) > 0 else self.dense / len(self.parts)

    @property
    def stakes(self) -> Tensor:
        """[columns] how a price per unit is shared out: 1 for a unit; for an exit, the units behind it up to the next.

        For one of several ways through a unit, it is that way's share of the dearest; going on past an exit is as dear
        as the units that are to be run there. Ways that cost nothing over the default, as copies do, have no price.
        """
        width = self.layout.width
        full = self.surplus[::width]
        behind = torch.zeros(len(self.base), dtype=torch.float64)
        behind.index_add_(0, torch.tensor(self.layout.sections[::width], dtype=torch.int64), full)
        typical = self.typical
        each = full.repeat_interleave(width)
        shares = torch.where(each > 0, self.surplus / each, 0.0)
        return torch.cat([shares, ((self.base + behind) / typical)[1:]])

    @property
    def minimum(self) -> float:
        """The least that a route can cost: every unit skipped, the first exit taken."""
        return float(self.base[0])

    @property
    def maximum(self) -> float:
        """The most that a route can cost: every unit run, the routers asked after each of them, no exit taken."""
        return float(self.base.sum() + self.surplus.view(-1, self.layout.width).amax(dim=1).sum())

    def expected(self, trace: RouteTrace) -> Tensor:
        """[B] differentiable cost under the relaxed gates: the sum of c_i r_i (Eq. 8 of Wang et al.), and the rest."""
        return self._of(trace.gates)

    def realized(self, trace: RouteTrace) -> Tensor:
        """[B] float64: the cost of what hard routing executes, routers included."""
        return self.of_routes(trace.routes)

    def of_routes(self, routes: Tensor) -> Tensor:
        """Routes [B, n] bool -> [B] float64 MACs."""
        return self._of(routes.double())

    def _of(self, gates: Tensor) -> Tensor:
        reach = self.layout.reach(gates)
        units = len(self.layout.sections)
        there = gates[:, :units] * reach[:, list(self.layout.sections)]
        return reach @ self.base.to(gates) + there @ self.surplus.to(gates)

    def of_sections(self, gates: Tensor) -> Tensor:
        """Gates [B, n] -> [B, exits + 1] what each section costs an image that gets there; differentiable."""
        surplus = gates[:, : len(self.layout.sections)] * self.surplus.to(gates)
        own = gates.new_zeros(len(gates), len(self.base))
        sections = torch.tensor(self.layout.sections, dtype=torch.int64, device=gates.device)
        return self.base.to(gates) + own.index_add(1, sections, surplus)


class _Ask:
    """One survey, with the state that the junctions before it left, for the tracer."""

    def __init__(self, network: RoutedNetwork, junctions: range, state: Any) -> None:
        self.routers, self.junctions, self.state = network.routers, junctions, state

    def __call__(self, features: Tensor) -> Tensor:
        margins: Tensor = self.routers.survey(self.junctions, features, self.state)[0]
        return margins
