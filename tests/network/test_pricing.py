"""One network for every budget: a price of computing that is a feature of what decides."""

from pathlib import Path

import pytest
import torch

import routekit
from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.calibrate import set_price
from routekit.evaluation.evaluate import evaluate
from routekit.formats.checkpoint import load, save_network
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import OPERATIONS, PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.routing.router import RouterConfig
from tests.toy import open_to_images, small_view, toy_images, toy_view
from tests.toy import toy_noise as images

# Such that a toy's units, of some thousands of multiply-adds, are worth their price or not.
RANGE = PriceRange(low=1.0, high=10_000.0)
EXIT = Exit(at="body.1", head="linear", hidden=8)


def price_units(network: RoutedNetwork) -> None:
    """Say what units cost, as training does."""
    costs = CostTable.measure(network)
    network.pricing.extra_cost.copy_(costs.extra[costs.layout.of_units] / OPERATIONS)


def adaptive() -> RoutedNetwork:
    network = convert(toy_view(), [Skip(), EXIT], routers=RouterConfig(hidden=8), adaptive_cost=RANGE).eval()
    open_to_images(network)
    price_units(network)
    for router in network.routers.routers:  # units run less, the dearer they are, by the price that is subtracted
        router[1].weight.data[:, -1] *= 0.01
    (decider,) = network.deciders
    with torch.no_grad():
        for parameter in decider.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        # Going on, the dearer computing is, is the less worth it.
        decider.router[0].weight[:, -1] = 0.0
        decider.router[0].weight[0, -1] = 100.0
        decider.router[2].weight[:, 0] = torch.tensor([-1.0, 1.0])
    return network


@torch.no_grad()
def test_a_price_for_each_image_decides_as_that_price_in_force() -> None:
    network, x = adaptive(), images(6)
    prices = torch.tensor([3.0, 30.0, 300.0, 1000.0, 3000.0, 9000.0])
    network.set_price(77.0)  # which a price of their own replaces
    together = network(x, k_cpt=prices)
    for row, price in enumerate(prices.tolist()):
        network.set_price(price)
        alone = network(x[row : row + 1])
        assert torch.equal(alone.routes[0], together.routes[row])
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_fast_form_knows_the_price() -> None:
    network, x = adaptive(), images(12)
    routes = []
    for price in (1.0, 100.0, 10_000.0):
        network.set_price(price)
        want = network(x)
        answer = routekit.optimize(network)(x)
        assert torch.equal(answer.routes, want.routes)
        torch.testing.assert_close(answer.logits, want.logits, rtol=1e-4, atol=1e-4)
        routes.append(want.routes.float().mean())
    assert routes[0] > routes[2]


def test_a_budget_is_met_by_the_price() -> None:
    network, val = adaptive(), toy_images(240)
    costs = CostTable.measure(network)
    spent = []
    for price in (RANGE.low, RANGE.high):
        network.set_price(price)
        spent.append(evaluate(network, val, costs).cost)
    assert spent[0] > spent[1]
    for share in (0.3, 0.5, 0.7):
        wanted = spent[1] + share * (spent[0] - spent[1])
        found = set_price(network, val, costs, wanted)
        assert found == evaluate(network, val, costs).cost
        assert found == pytest.approx(wanted, rel=0.03)
    with pytest.raises(InputError, match=r"out of reach: at the prices that it learned, this network costs .* to "):
        set_price(network, val, costs, 0.9 * spent[1])


def test_prices_that_were_not_learned() -> None:
    with pytest.raises(InputError, match=r"a price of 0\.5 was not learned: this network knows 1 to 10000"):
        adaptive().set_price(0.5)
    with pytest.raises(InputError, match="trained for one budget: train with adaptive_cost"):
        convert(toy_view(), [Skip()]).set_price(5.0)
    with pytest.raises(ValueError, match="a range of prices"):
        PriceRange(low=1.0, high=0.5)


def test_prices_go_by_what_the_network_costs() -> None:
    views = (toy_view(), build(spec_of("resnet20")))
    for network in (convert(view, [Skip()], adaptive_cost=PriceRange()) for view in views):
        assert network.pricing is not None
        dense = CostTable.measure(network).dense
        range_ = network.pricing.range
        assert [price * dense / OPERATIONS for price in (range_.lowest, range_.highest)] == pytest.approx([0.02, 2.0])
    half_open = PriceRange(low=0.1).sized(4e7)
    assert (half_open.lowest, half_open.highest) == pytest.approx((0.1, 0.5))
    # Distilled at a temperature of 4, nine tenths of an error are four times as large.
    distilled = PriceRange().sized(4e7, ObjectiveWeights(distillation=0.9).error_scale)
    assert (distilled.lowest, distilled.highest) == pytest.approx((3.7 * 0.005, 3.7 * 0.5))
    with pytest.raises(InputError, match=r"prices of computing from 5 to 0\.5 are no range: give both"):
        PriceRange(low=5.0).sized(4e7)


def test_units_alone_find_their_prices_if_both_bounds_are_open() -> None:
    def finds(range_: PriceRange, *exits: Junction) -> bool:
        network = convert(toy_view(), [Skip(), *exits], routers=RouterConfig(hidden=8), adaptive_cost=range_)
        assert network.pricing is not None
        return network.pricing.finds

    assert finds(PriceRange())
    assert not finds(PriceRange(low=1.0))
    assert not finds(PriceRange(low=1.0, high=2.0))
    assert not finds(PriceRange(), EXIT)


def test_prices_are_drawn_log_uniformly() -> None:
    drawn = PriceRange(low=0.01, high=1.0).draw(20_000, torch.Generator().manual_seed(0))
    assert 0.01 <= float(drawn.min()) < float(drawn.max()) <= 1.0
    assert float((drawn < 0.1).double().mean()) == pytest.approx(0.5, abs=0.02)
    half = PriceRange(low=0.01, high=1.0).draw(1000, torch.Generator().manual_seed(0), dearest=0.5)
    torch.testing.assert_close(half[:500], torch.ones(500))
    assert float(half[500:].max()) < 1.0


@pytest.mark.parametrize(
    "junctions",
    [
        [Skip(), Exit(at="layer2.1", width=8)],
        [Exit(at="layer2.1", width=8)],
        [Skip(), Cascade(width=0.3, rule="learned")],
    ],
    ids=["skip and exit", "exit", "skip and cascade"],
)
@torch.no_grad()
def test_saved_with_its_prices(tmp_path: Path, junctions: list[Junction]) -> None:
    network = convert(small_view(), junctions, adaptive_cost=PriceRange(0.1, 3.0)).eval()
    open_to_images(network)
    price_units(network)
    network.set_price(0.5)
    assert all(decider.price is not None for decider in network.deciders)
    save_network(tmp_path, network, about={})
    again, x = load(tmp_path), images(4)
    for price in (None, 0.2):
        if price is not None:
            network.set_price(price)
            again.set_price(price)
        assert torch.equal(again(x).logits, network(x).logits)
        assert torch.equal(again(x).routes, network(x).routes)
