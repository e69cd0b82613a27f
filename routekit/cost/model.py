"""What a route costs: every part of a network is measured once, a sample pays for the parts it executes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from routekit.cost.macs import Count, count
from routekit.network.convert import example_input
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace


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

    parts:   stem, units, head, in order; their sum is the dense network's cost
    run:     [n] what running each skippable unit costs
    skip:    [n] what skipping it costs: the shortcut of a down-sampling unit, else 0
    ask:     [n] what it costs to ask the routers from this junction to the end of its group about new features
    fresh:   [n] bool: the junction begins a group, so that its features are new whatever was decided before
    fixed:   what every image pays: stem, head and the units that cannot be skipped
    uncounted: operators without a rule in fvcore (counted as 0): additions, pooling of some kinds
    """

    parts: tuple[Part, ...]
    run: Tensor
    skip: Tensor
    ask: Tensor
    fresh: Tensor
    fixed: float
    uncounted: tuple[str, ...]

    @classmethod
    @torch.no_grad()
    def measure(cls, network: RoutedNetwork) -> "CostModel":
        """Run one blank image through the parts of `network` and count each with fvcore."""
        view = network.view
        was_training = network.training
        network.eval()
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

        x = example_input(view)
        parts.append(Part("stem", "stem", cost_of("stem", view.stem, (x,), view.model), skippable=False))
        x = view.stem(x)
        state: Any = None
        for unit in view.units:
            # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves out.
            kind = (unit.name if view.spec.source == "custom" else repr(unit.block), tuple(x.shape))
            parts.append(Part(unit.name, "unit", cost_of(("run", *kind), unit.run, (x,), unit.block), unit.skippable))
            if unit.skippable:
                index = len(run)
                run.append(parts[-1].flops)
                identity = unit.shortcut is None
                skip.append(0 if identity else cost_of(("skip", *kind), unit.skip, (x,), unit.block))
                # Asking depends on the features' shape, on how many are asked, and on whether there is a state.
                rest = range(index, ends[index].stop)
                asked = ("ask", tuple(x.shape), len(rest), state is None)
                ask.append(cost_of(asked, _Ask(network, rest, state), (x,), network.routers))
                _, state = network.routers(index, x, state)
            x = unit.run(x)
        parts.append(Part("head", "head", cost_of("head", view.head, (x,), view.model), skippable=False))
        network.train(was_training)
        return cls(
            parts=tuple(parts),
            run=torch.tensor(run, dtype=torch.float64),
            skip=torch.tensor(skip, dtype=torch.float64),
            ask=torch.tensor(ask, dtype=torch.float64),
            fresh=torch.tensor([index == ends[index].start for index in range(len(run))]),
            fixed=float(sum(part.flops for part in parts if not part.skippable)),
            uncounted=tuple(sorted(uncounted)),
        )

    @property
    def dense(self) -> float:
        """The cost without routing: every unit that the network has, no router. Dropped units are not in it."""
        return self.fixed + float(self.run.sum())

    @property
    def surplus(self) -> Tensor:
        """[n] by how much running a unit is dearer than skipping it: the routers after it are asked again."""
        again = torch.where(self.fresh, 0.0, self.ask).roll(-1)
        return self.run - self.skip + again

    @property
    def minimum(self) -> float:
        """The least that a route can cost: every unit skipped, the routers of each group asked once."""
        return self.fixed + float(self.skip.sum() + self.ask[self.fresh].sum())

    @property
    def maximum(self) -> float:
        """The most that a route can cost: every unit run, the routers asked after each of them."""
        return self.dense + float(self.ask.sum())

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
        return self.minimum + gates @ self.surplus.to(gates)


class _Ask:
    """One survey, with the state that the junctions before it left, for the tracer."""

    def __init__(self, network: RoutedNetwork, junctions: range, state: Any) -> None:
        self.routers, self.junctions, self.state = network.routers, junctions, state

    def __call__(self, features: Tensor) -> Tensor:
        margins: Tensor = self.routers.survey(self.junctions, features, self.state)[0]
        return margins
