"""Measure a routed network on held-out images: accuracy and realised cost under hard routing."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating
from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.evaluation.routes import RouteStatistics, route_statistics
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.routing.gate import Gate, hard


@dataclass(frozen=True)
class Evaluation:
    """What every image did.

    correct:  [N] bool, whether the top class was right
    costs:    [N] MACs that its route executed, routers included
    routes:   [N, n] bool, the units that ran
    margins:  [N, n] by how much each router preferred to run its unit
    labels:   [N]
    leaves:   [N, leaves, classes] the answer so far at each stop, and the last; None where images left on the way
    """

    correct: Tensor
    costs: Tensor
    routes: Tensor
    margins: Tensor
    labels: Tensor
    leaves: Tensor | None = None

    @property
    def routes_everywhere(self) -> Tensor:
        """[N, n] bool, what was preferred everywhere, also behind stops that are taken."""
        return self.margins >= 0

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction."""
        return float(self.correct.double().mean())

    @property
    def cost(self) -> float:
        """Mean realised cost, MACs."""
        return float(self.costs.mean())

    def cost_quantiles(self) -> dict[str, float]:
        """Realised cost over images: mean, p5, p50, p95, in MACs."""
        levels = torch.quantile(self.costs, torch.tensor([0.05, 0.5, 0.95], dtype=self.costs.dtype))
        return {"mean": self.cost} | dict(zip(("p5", "p50", "p95"), levels.tolist(), strict=True))

    def chance(self, others: int) -> float:
        """One standard error of how the mean cost differs from that of so many `others`, images like these, MACs.

        A budget that was met on them is missed here by about that, for no other reason than which images they are.
        """
        each = float(self.costs.double().std(correction=0))
        return each * math.sqrt(1 / len(self.costs) + 1 / others)

    @property
    def statistics(self) -> RouteStatistics:
        """How the routes are distributed."""
        return route_statistics(self.routes, self.labels)


@torch.no_grad()
def evaluate(
    network: RoutedNetwork,
    images: Images,
    costs: CostTable,
    *,
    indices: Tensor | None = None,
    batch_size: int = 256,
    gate: Gate = hard,
    routes: Tensor | None = None,
    seed: int = 0,
    everywhere: bool = False,
) -> Evaluation:
    """Run images (all, or those of `indices`) through the network in eval mode, executing only what they choose.

    `routes` [N, n] forces a route on each image; `gate` and `seed` are for sampled inference (Table 4b). `everywhere`
    executes all of a network, so that margins are known behind exits that are taken as well.
    """
    with evaluating(network):
        device = next(network.parameters()).device
        spec = network.spec
        generator = torch.Generator().manual_seed(seed)
        correct, spent, taken, preferred, seen, told = [], [], [], [], [], []
        indices = torch.arange(len(images)) if indices is None else indices
        done = 0
        for batch, labels in images.batches(indices, batch_size):
            x = normalize(batch.to(device), spec.mean, spec.std)
            forced = None if routes is None else routes[done : done + len(batch)].to(device)
            done += len(batch)
            options: dict[str, Any] = {"execution": masked} if everywhere else {}
            trace = network(x, gate=gate, generator=generator, routes=forced, **options)
            ran = trace.ran
            correct.append(trace.logits.argmax(dim=1).cpu() == labels)
            spent.append(costs.of_routes(ran).cpu())
            taken.append(ran.cpu())
            preferred.append(trace.margins.cpu())
            seen.append(labels)
            told += [torch.stack([leaf.cpu() for leaf in trace.leaves], dim=1)] if everywhere else []
    return Evaluation(
        torch.cat(correct),
        torch.cat(spent),
        torch.cat(taken),
        torch.cat(preferred),
        torch.cat(seen),
        torch.cat(told) if told else None,
    )
