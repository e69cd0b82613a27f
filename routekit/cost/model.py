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

    parts:   stem, units, head, in order; their sum is the dense network's cost
    run:     [n] what running each skippable unit costs
    skip:    [n] what skipping it costs: the shortcut of a down-sampling unit, else 0
    router:  [n] what asking its router costs
    fixed:   what every image pays: stem, head and the units that cannot be skipped
    uncounted: operators without a rule in fvcore (counted as 0): additions, pooling of some kinds
    """

    parts: tuple[Part, ...]
    run: Tensor
    skip: Tensor
    router: Tensor
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
        router: list[int] = []
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
                # A bank's router depends on its features' shape and on whether it was handed a state.
                asked = ("router", tuple(x.shape), state is None)
                router.append(cost_of(asked, _Ask(network, index, state), (x,), network.routers))
                _, state = network.routers(index, x, state)
            x = unit.run(x)
        parts.append(Part("head", "head", cost_of("head", view.head, (x,), view.model), skippable=False))
        network.train(was_training)
        return cls(
            parts=tuple(parts),
            run=torch.tensor(run, dtype=torch.float64),
            skip=torch.tensor(skip, dtype=torch.float64),
            router=torch.tensor(router, dtype=torch.float64),
            fixed=float(sum(part.flops for part in parts if not part.skippable)),
            uncounted=tuple(sorted(uncounted)),
        )

    @property
    def dense(self) -> float:
        """The original network's cost: every unit, no router."""
        return self.fixed + float(self.run.sum())

    @property
    def minimum(self) -> float:
        """The least that a route can cost: every router asked, every unit skipped."""
        return self.fixed + float((self.router + self.skip).sum())

    @property
    def maximum(self) -> float:
        """The most that a route can cost: every router asked, every unit run."""
        return self.dense + float(self.router.sum())

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
        run, skip = (self.run - self.skip).to(gates), self.skip.to(gates)
        constant = self.fixed + float(self.router.sum())
        return constant + (skip.sum() + gates @ run)


class _Ask:
    """One call of one router with the state that the junctions before it left, for the tracer."""

    def __init__(self, network: RoutedNetwork, index: int, state: Any) -> None:
        self.routers, self.index, self.state = network.routers, index, state

    def __call__(self, features: Tensor) -> Tensor:
        logits, _ = self.routers(self.index, features, self.state)
        return torch.as_tensor(logits)
