"""One network for every budget: a price of computing that is told to the routers."""

from pathlib import Path

import pytest
import torch

import routekit
from routekit.backbones.load import build, spec_of
from routekit.cost.model import CostModel
from routekit.errors import InputError
from routekit.evaluation.calibrate import set_price
from routekit.evaluation.evaluate import evaluate
from routekit.export.checkpoint import load_network, save_network
from routekit.network.convert import convert
from routekit.network.dial import OPERATIONS, DialRange
from routekit.network.exits import ExitConfig
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.routing.router import RouterConfig
from tests.toy import open_to_images, toy_images, toy_view
from tests.toy import toy_noise as images

# Such that a toy's units, of some thousands of multiply-adds, are worth their price or not.
RANGE = DialRange(low=1.0, high=10_000.0)
EXITS = ExitConfig(at="body.1", head="linear", hidden=8)


def adaptive() -> RoutedNetwork:
    network = convert(toy_view(), RouterConfig(hidden=8), exits=[EXITS], dial=RANGE).eval()
    open_to_images(network)
    assert network.dial is not None
    network.dial.surplus.copy_(CostModel.measure(network).surplus / OPERATIONS)
    for router in network.routers.routers:  # units run less, the dearer they are, by the price that is subtracted
        router[1].weight.data[:, -1] *= 0.01
    (leaving,) = network.exits
    with torch.no_grad():
        for parameter in leaving.deciding_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        # Going on, the dearer computing is, is the less worth it.
        leaving.router[0].weight[:, -1] = 0.0
        leaving.router[0].weight[0, -1] = 100.0
        leaving.router[2].weight[:, 0] = torch.tensor([-1.0, 1.0])
    return network


@torch.no_grad()
def test_a_price_for_each_image_decides_as_the_dial_set_to_it() -> None:
    network, x = adaptive(), images(6)
    prices = torch.tensor([3.0, 30.0, 300.0, 1000.0, 3000.0, 9000.0])
    network.set_dial(77.0)  # which a price of their own replaces
    together = network(x, k_cpt=prices)
    for row, price in enumerate(prices.tolist()):
        network.set_dial(price)
        alone = network(x[row : row + 1])
        assert torch.equal(alone.routes[0], together.routes[row])
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_fast_form_knows_the_price() -> None:
    network, x = adaptive(), images(12)
    routes = []
    for price in (1.0, 100.0, 10_000.0):
        network.set_dial(price)
        want = network(x)
        answer = routekit.optimize(network)(x)
        assert torch.equal(answer.routes, want.routes)
        torch.testing.assert_close(answer.logits, want.logits, rtol=1e-4, atol=1e-4)
        routes.append(want.routes.float().mean())
    assert routes[0] > routes[2]


def test_a_budget_is_met_by_the_dial() -> None:
    network, val = adaptive(), toy_images(240)
    costs = CostModel.measure(network)
    spent = []
    for price in (RANGE.low, RANGE.high):
        network.set_dial(price)
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
        adaptive().set_dial(0.5)
    with pytest.raises(InputError, match="trained for one budget: train with --adaptive-cost"):
        convert(toy_view()).set_dial(5.0)
    with pytest.raises(ValueError, match="a range of prices"):
        DialRange(low=1.0, high=0.5)


def test_prices_go_by_what_the_network_costs() -> None:
    toy, larger = (convert(view, dial=DialRange()) for view in (toy_view(), build(spec_of("resnet20"))))
    for network in (toy, larger):
        assert network.dial is not None
        dense = CostModel.measure(network).dense
        whole = [price * dense / OPERATIONS for price in (network.dial.range.lowest, network.dial.range.highest)]
        assert whole == pytest.approx([0.02, 2.0])
    half_open = DialRange(low=0.1).sized(4e7)
    assert (half_open.lowest, half_open.highest) == pytest.approx((0.1, 0.5))
    # Distilled at a temperature of 4, nine tenths of an error are four times as large.
    distilled = DialRange().sized(4e7, ObjectiveWeights(distillation=0.9).error_scale)
    assert (distilled.lowest, distilled.highest) == pytest.approx((3.7 * 0.005, 3.7 * 0.5))
    with pytest.raises(InputError, match=r"prices of computing from 5 to 0\.5 are no range: give both"):
        DialRange(low=5.0).sized(4e7)


def test_units_alone_find_their_prices_if_both_bounds_are_open() -> None:
    def finds(range_: DialRange, *exits: ExitConfig) -> bool:
        dial = convert(toy_view(), RouterConfig(hidden=8), exits=exits, dial=range_).dial
        assert dial is not None
        return dial.finds

    assert finds(DialRange())
    assert not finds(DialRange(low=1.0))
    assert not finds(DialRange(low=1.0, high=2.0))
    assert not finds(DialRange(), EXITS)


def test_prices_are_drawn_log_uniformly() -> None:
    drawn = DialRange(low=0.01, high=1.0).draw(20_000, torch.Generator().manual_seed(0))
    assert 0.01 <= float(drawn.min()) < float(drawn.max()) <= 1.0
    assert float((drawn < 0.1).double().mean()) == pytest.approx(0.5, abs=0.02)
    half = DialRange(low=0.01, high=1.0).draw(1000, torch.Generator().manual_seed(0), dearest=0.5)
    torch.testing.assert_close(half[:500], torch.ones(500))
    assert float(half[500:].max()) < 1.0


@torch.no_grad()
def test_saved_with_its_dial(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exits = ExitConfig(at="layer2.1", width=8)
    view = routekit.load_backbone("resnet20", weights="none")
    network = convert(view, RouterConfig(), exits=[exits], dial=DialRange(0.1, 3.0)).eval()
    open_to_images(network)
    network.dial.surplus.copy_(CostModel.measure(network).surplus / OPERATIONS)
    network.set_dial(0.5)
    save_network(tmp_path, network, about={})
    again, x = load_network(tmp_path), torch.randn(4, 3, 32, 32)
    for price in (None, 0.2):
        if price is not None:
            network.set_dial(price)
            again.set_dial(price)
        assert torch.equal(again(x).logits, network(x).logits)
        assert torch.equal(again(x).routes, network(x).routes)
