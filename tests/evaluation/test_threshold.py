"""The thresholds of a cascade of networks meet a mean cost on the images that they are set on."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from routekit.cost.price import price_for
from routekit.cost.table import CostTable, Part
from routekit.cost.target import OutOfReachError
from routekit.data.sources import DataSplits
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.junctions.convert import join
from routekit.network.network import RoutedNetwork
from routekit.pipeline.join import set_deferral
from routekit.pipeline.machine import Hooks, Machine
from routekit.routing.decision import Layout
from tests.toy import toy_data, toy_exits, toy_images, toy_routed


def table(*networks: float, units: float = 0.0) -> CostTable:
    """What networks in a row cost; each has a unit, too, which not all images run, if those cost something."""
    stops = len(networks) - 1
    sections = [at for at in range(stops + 1) for _ in range(1 + (at < stops))]
    at = [place for place in range(len(sections)) if place % 2] if units else list(range(stops))
    if not units:
        sections = list(range(stops))
    return CostTable(
        parts=(Part("all", "unit", sum(networks), skippable=False),),
        dense=networks[-1],
        extra=torch.tensor([0.0 if place in at else units for place in range(len(sections))], dtype=torch.float64),
        base=torch.tensor(networks, dtype=torch.float64),
        layout=Layout(tuple(sections), tuple(at), (1,) * len(sections)),
    )


def threshold(costs: CostTable, certainties: Tensor, wanted: float) -> Tensor:
    """`[stops]`, the thresholds at which a mean cost is met, of images `[N, stops]` so certain at each stop."""
    share = costs.cost_share[list(costs.layout.stops)]
    return 1 - price_for(1 - certainties, costs, wanted, cost_share=share) * share


def test_two_networks_by_hand() -> None:
    # The first costs 1, the second 4; of four images, those of a certainty of at most the threshold go on.
    costs, certainties = table(1, 4), torch.tensor([[0.9], [0.5], [0.7], [0.3]], dtype=torch.float64)

    def cost(threshold: float) -> float:
        return float(costs.of_routes(certainties <= threshold).mean())

    assert [cost(t) for t in (0.2, 0.3, 0.6, 0.7, 1.0)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert float(threshold(costs, certainties, 3.0)) == pytest.approx(0.6)  # between the certainties of two images
    assert float(threshold(costs, certainties, 3.9)) == pytest.approx(0.6)  # no more than is wanted
    assert float(threshold(costs, certainties, 4.0)) == pytest.approx(0.8)
    assert float(threshold(costs, certainties, 1.0)) < 0.3
    assert float(threshold(costs, certainties, 5.0)) >= 0.9


def test_three_networks_by_hand() -> None:
    # Who is sure at the second network does not pay for the third, whatever the third would say.
    costs, certainties = table(1, 10, 100), torch.tensor([[0.2, 0.9], [0.2, 0.2], [0.9, 0.2]])
    assert float(costs.of_routes(certainties <= 0.5).mean()) == pytest.approx((3 * 1 + 2 * 10 + 100) / 3)
