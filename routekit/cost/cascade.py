"""What a cascade costs: each image pays for the networks that it asked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.model import CostModel
from routekit.network.cascade import Cascade
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class CascadeCost:
    """The cost tables of a cascade's networks, MACs; `places` are their columns in a route (`Cascade.places`)."""

    stages: tuple[CostModel, ...]
    places: tuple[range, ...]

    @classmethod
    def measure(cls, cascade: Cascade) -> "CascadeCost":
        """Measure each network."""
        return cls(tuple(CostModel.measure(network) for network in cascade.networks), tuple(cascade.places))

    @property
    def dense(self) -> float:
        """What the last network costs alone, dense: what the cascade is used in place of."""
        return self.stages[-1].dense

    def of_routes(self, routes: Tensor) -> Tensor:
        """Routes [B, n] bool -> [B] float64 MACs."""
        total = torch.zeros(len(routes), dtype=torch.float64, device=routes.device)
        for number, (costs, place) in enumerate(zip(self.stages, self.places, strict=True)):
            asked = routes[:, place.start - 1].double() if number else 1.0
            total += asked * costs.of_routes(routes[:, place.start : place.stop])
        return total


def measure_costs(network: RoutedNetwork | Cascade) -> CostModel | CascadeCost:
    """The cost table of a network, or of a cascade."""
    return CascadeCost.measure(network) if isinstance(network, Cascade) else CostModel.measure(network)
