"""Measure a routed network on held-out images: accuracy and realised cost under hard routing."""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating
from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.evaluation.routes import RouteStatistics, route_statistics
from routekit.network.execution import masked, sparse
from routekit.network.network import RoutedNetwork
from routekit.routing.gate import Gate, hard


@dataclass(frozen=True)
class Evaluation:
    """The answer and the route of each image.

    Attributes:
        correct: `[N]`, bool, whether the top class was right.
        costs: `[N]`, what its route cost, routers included, in the table's unit.
        routes: `[N, columns]`, bool, the sinks that it took.
        margins: `[N, columns]`, how much each sink is preferred to the default.
        labels: `[N]`.
        leaves: `[N, leaves, classes]`, the answer so far at each stop, and the last answer. None if images exited.
    """

    correct: Tensor
    costs: Tensor
    routes: Tensor
    margins: Tensor
    labels: Tensor
    leaves: Tensor | None = None

    @property
    def routes_everywhere(self) -> Tensor:
        """`[N, columns]`, bool, the preferred sinks, also behind stops that are taken."""
        return self.margins >= 0

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction."""
        return float(self.correct.double().mean())

    @property
    def cost(self) -> float:
        """Mean realised cost, in the table's unit."""
        return float(self.costs.mean())

    def cost_quantiles(self) -> dict[str, float]:
        """Return the realised cost over images: mean, p5, p50, p95."""
        levels = torch.quantile(self.costs, torch.tensor([0.05, 0.5, 0.95], dtype=self.costs.dtype))
        return {"mean": self.cost} | dict(zip(("p5", "p50", "p95"), levels.tolist(), strict=True))

    def chance(self, others: int) -> float:
        """Return one standard error of the difference to the mean cost of so many `others`, images like these.

        A budget that was met on the others is missed on these images by about that, by chance alone.
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
    batch_size: int = 256,
    gate: Gate = hard,
    routes: Tensor | None = None,
    seed: int = 0,
    everywhere: bool = False,
) -> Evaluation:
    """Run images through the network in eval mode.

    Args:
        network: The network.
        images: The images.
        costs: The cost table.
        batch_size: Images per batch.
        gate: Turns scores into weights. A gate that samples is for Table 4b of Wang et al.
        routes: `[N, columns]`, bool, in the place of all decisions; None for the network's own.
        seed: Of a gate that samples.
        everywhere: Run each image to the end, for the margins and answers behind stops that are taken. Else, only what
            the image chooses is executed.

    Returns:
        What was found, on the CPU.
    """
    device, spec = next(network.parameters()).device, network.spec
    generator = torch.Generator().manual_seed(seed)
    batches = images.batches(torch.arange(len(images)), batch_size)
    forced = itertools.repeat(None) if routes is None else torch.split(routes, batch_size)
    found = []
    with evaluating(network):
        for (batch, labels), route in zip(batches, forced, strict=False):
            trace = network(
                normalize(batch.to(device), spec.mean, spec.std),
                gate=gate,
                execution=masked if everywhere else sparse,
                generator=generator,
                routes=None if route is None else route.to(device),
            )
            ran, correct = trace.ran, trace.logits.argmax(dim=1).cpu() == labels
            leaves = [torch.stack(trace.leaves, dim=1)] if everywhere else []
            parts = (correct, costs.of_routes(trace.computed), ran, trace.margins, labels, *leaves)
            found.append([part.cpu() for part in parts])
    return Evaluation(*(torch.cat(parts) for parts in zip(*found, strict=True)))
