"""What steers a cost to its budget: weights and prices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from routekit.cost.controller import GivenPrices
from routekit.cost.exit_price import ExitPriceController
from routekit.cost.price import LEEWAY, PriceController, PriceRangeController, price_for
from routekit.cost.table import CostTable
from routekit.cost.weight import CostWeightController
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.routing.router import RouterConfig
from tests.toy import toy_exits, toy_view


def test_the_wanted_cost_falls_to_the_target_and_stays() -> None:
    budget = GivenPrices(target=0.5, anneal_steps=100)
    assert [budget.wanted(step) for step in (0, 50, 100, 200)] == [1.0, 0.75, 0.5, 0.5]
    later = GivenPrices(target=0.5, anneal_steps=100, anneal_from=40)
    assert [later.wanted(step) for step in (0, 40, 90, 140, 200)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    at_once = GivenPrices(target=0.5, anneal_steps=0, anneal_from=40)
    assert [at_once.wanted(step) for step in (39, 40)] == [1.0, 0.5]


@pytest.mark.parametrize("stiffness", [0.5, 2.0, 8.0])
def test_the_weight_lands_on_the_target_for_networks_of_any_stiffness(stiffness: float) -> None:
    # A network whose cost answers the weight with a lag: it settles where stiffness * (1 - cost) equals the weight.
    budget = CostWeightController(target=0.5, anneal_steps=100)
    cost = 1.0
    for step in range(600):
        wants = max(0.1, 1.0 - budget.cost_weight / stiffness)
        cost += 0.2 * (wants - cost)
        budget.correct(cost, step)
        assert budget.cost_weight >= 0
    assert cost == pytest.approx(0.5, abs=0.01)


def test_cost_is_never_rewarded() -> None:
    budget = CostWeightController(target=0.9, anneal_steps=0)
    for step in range(50):
        budget.correct(0.2, step)
    assert budget.cost_weight == 0


def test_the_price_of_exits_rises_by_what_batches_exceed_and_knows_what_held_out_images_do() -> None:
    costs = CostTable.measure(toy_exits(exits=Exit(at="body.0,body.2", head="linear")))
    columns = len(costs.layout.sections)
    all_on, none = torch.ones(8, columns), -torch.ones(8, columns)
    dearest, least = costs.maximum / costs.dense, costs.minimum / costs.dense
    budget = ExitPriceController(0.6, 0, gain=0.5, follows=0.5)
    bias = torch.zeros(columns)
    assert budget.observe(bias, all_on, costs, 0) is bias
    assert budget.price == pytest.approx(0.5 * (dearest - 0.6))
    assert budget.k_cpt(costs) == pytest.approx(budget.price / costs.dense)
    # Held-out images cost 0.1 more: at the same price, they are what is to cost 0.6.
    budget.correct(dearest + 0.1, 0)
    assert budget.ahead == pytest.approx(0.05)
    before = budget.price
    budget.observe(bias, all_on, costs, 1)
    assert budget.price - before == pytest.approx(0.5 * (dearest + 0.05 - 0.6))
    for step in range(50):
        budget.observe(bias, none, costs, step)
    assert least < 0.55
    assert budget.price == 0.0  # cost is never rewarded


@pytest.mark.parametrize("lag", [0.02, 0.1, 0.5])
def test_the_price_of_exits_does_not_swing_where_decisions_follow_slowly(lag: float) -> None:
    """Images stop at an exit if that is worth its price; what is decided learns the price with a lag."""
    costs = CostTable.measure(toy_exits(exits=Exit(at="body.0,body.2", head="linear"), skips=False))
    worth = torch.rand(256, 2, generator=torch.Generator().manual_seed(0))
    budget, learned, found = ExitPriceController(0.7, 100), 0.0, []
    for step in range(800):
        learned += lag * (budget.k_cpt(costs) * costs.dense - learned)
        margins = worth - learned
        budget.observe(torch.zeros(2), margins, costs, step)
        found.append(float(costs.of_routes(margins >= 0).mean()) / costs.dense)
    assert sum(found[-100:]) / 100 == pytest.approx(0.7, abs=0.02)
    assert max(found[-100:]) - min(found[-100:]) < 0.1


TOY = CostTable.measure(convert(toy_view(), [Skip()]))
TOY_EXITS = CostTable.measure(toy_exits(exits=Exit(at="body.0,body.2", head="linear", rule="confidence")))
UNITS, STOPS = TOY_EXITS.layout.of_units, list(TOY_EXITS.layout.stops)


def in_order(units: Tensor, stops: Tensor) -> Tensor:
    """Columns of the units `[..., 4]` and of the exits `[..., 2]` of `TOY_EXITS`, in the order of its program."""
    columns = units.new_zeros(*units.shape[:-1], 6)
    columns[..., UNITS], columns[..., STOPS] = units, stops
    return columns


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_at_its_price_a_batch_costs_what_is_wanted(seed: int, share: float) -> None:
    costs = TOY
    margins = torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))
    wanted = costs.minimum + share * (costs.maximum - costs.minimum)
    price = price_for(margins, costs, wanted, costs.cost_share)
    spent = float(costs.of_routes(margins >= price).mean())
    # The last pair of image and unit fits in or not: one pair's share of a batch of 64, at the dearest.
    assert spent == pytest.approx(wanted, abs=float(costs.extra.max()) / 64 + 1e-6)
    # No image sits on the price, where rounding would decide: it lies in the middle between two of them.
    below, above = margins[margins < price], margins[margins > price]
    if len(below) and len(above):
        assert price == pytest.approx((float(below.max()) + float(above.min())) / 2, abs=1e-6)


def test_the_price_finds_its_way_and_corrects_what_held_out_images_exceed() -> None:
    costs = CostTable.measure(convert(toy_view(), [Skip()]))
    price, bias = PriceController(target=0.6, anneal_steps=100), torch.zeros(4)
    margins = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    for step in range(500):
        bias = price.observe(bias, margins + bias, costs, step)
        if step % 10 == 9:
            # Held-out images look harder to the routers: their margins are larger.
            held_out = float(costs.of_routes(margins + 0.3 + bias >= 0).mean()) / costs.dense
            price.correct(held_out, step)
    assert held_out == pytest.approx(0.6, abs=0.02)
    assert price.trim > 0


def test_congestion_spreads_the_runs_over_more_units_at_the_same_cost() -> None:
    costs = CostTable.measure(convert(toy_view(), [Skip()]))
    # Each unit is worth a little less than the one before, each image a little more or less than another.
    margins = torch.randn(512, 4, generator=torch.Generator().manual_seed(0)) * 0.1 - torch.arange(4) * 0.3
    routes = {}
    for congestion in (0.0, 4.0):
        price, bias = PriceController(target=0.55, anneal_steps=0, congestion=congestion), torch.zeros(4)
        for step in range(150):
            bias = price.observe(bias, margins + bias, costs, step)
        routes[congestion] = margins + bias >= 0
        assert float(costs.of_routes(routes[congestion]).mean()) == pytest.approx(0.55 * costs.dense, rel=0.05)
    assert len(routes[4.0].unique(dim=0)) > len(routes[0.0].unique(dim=0))
    # Among the images of one unit, those that are worth more run it.
    ran, worth = routes[4.0][:, 0], margins[:, 0]
    assert worth[ran].min() >= worth[~ran].max()


def test_what_units_say_they_are_worth_is_exchanged_for_what_going_on_gains() -> None:
    costs = TOY_EXITS
    assert costs.layout.sections == (0, 0, 1, 1, 1, 2)  # three units behind the first exit, one behind the second
    # All units run, each said to be worth 2: those behind the first exit 6 together, where going on gains but 3.
    margins = in_order(torch.full((8, 4), 2.0), torch.ones(8, 2))
    gains = torch.tensor([3.0, 0.5])
    budget = PriceController(1.0, 0, inertia=0.0, ruled=(False, False))
    budget.observe(torch.zeros(6), margins, costs, 1, gains)
    assert budget.exchange is not None
    assert budget.exchange.tolist() == pytest.approx([0.5, 0.25])
    budget.paid = 0.8
    assert budget.k_cpt(costs) == pytest.approx(0.8 * 0.375 / costs.typical)
    # What goes on and only loses is free; what nobody says is worth anything keeps its price.
    budget.observe(torch.zeros(6), margins, costs, 1, torch.tensor([-1.0, 5.0]))
    assert budget.exchange.tolist() == pytest.approx([0.0, 1.0])
    budget.observe(torch.zeros(6), -margins, costs, 1, gains)
    assert budget.exchange.tolist() == [1.0, 1.0]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), share=st.floats(0.3, 0.9))
def test_units_and_exits_by_a_rule_share_one_price(seed: int, share: float) -> None:
    costs, generator = TOY_EXITS, torch.Generator().manual_seed(seed)
    bias = in_order(torch.randn(4, generator=generator), torch.ones(2)).double()
    # What is known of an image: what each unit is worth to it, and its chance of an error at each exit.
    worth = in_order(torch.randn(64, 4, generator=generator), torch.rand(64, 2, generator=generator))
    margins = worth.double() + bias - in_order(torch.zeros(4), torch.ones(2))
    wanted = costs.minimum / costs.dense + share * (costs.maximum - costs.minimum) / costs.dense
    budget = PriceController(wanted, 0, inertia=0.0, ruled=(True, True))
    moved = budget.observe(bias, margins, costs, step=1)
    # A hair more is spared: whoever is on the border falls either way.
    routes = margins - bias + moved - 1e-9 >= 0
    assert float(costs.of_routes(routes).mean()) <= wanted * costs.dense + 1e-6
    assert budget.exchange is not None
    rates = in_order(torch.ones(4).double(), budget.exchange.double())
    assert torch.equal(routes, worth.double() - 1e-9 >= budget.price * rates * costs.cost_share)
    # Exits that learned know the price by themselves.
    learned = PriceController(wanted, 0, inertia=0.0, ruled=(False, False)).observe(bias, margins, costs, 1)
    assert torch.equal(learned[STOPS], bias[STOPS])
    assert not torch.equal(learned[UNITS], bias[UNITS])


def test_a_range_of_prices_goes_from_nearly_all_to_the_target() -> None:
    """Each unit is worth something else to each image; the bounds are the worths at which so much is spent."""
    costs = CostTable.measure(convert(toy_view(), [Skip()], routers=RouterConfig(hidden=16)))
    extra = costs.extra / 1e7
    worths = torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) * extra * 100  # uniform in price, to 100
    found = PriceRangeController(0.5, 0, low=1.0, high=2.0, least=1e-3, inertia=0.0)
    low, high = found.find(worths, 400, costs, extra, step=0)

    def spent(price: float) -> float:
        return float(costs.of_routes(worths > price * extra).mean()) / costs.dense

    assert spent(high) == pytest.approx(0.5, abs=0.01)
    assert spent(low) == pytest.approx(1 - LEEWAY * 0.5, abs=0.01)
    # What held-out images exceed is taken off, and prices follow slowly, by their logarithms.
    found.correct(0.7, step=0)
    assert found.trim == pytest.approx(0.02)
    _, tighter = found.find(worths, 400, costs, extra, step=0)
    assert spent(tighter) == pytest.approx(0.48, abs=0.01)
    slower = PriceRangeController(0.5, 0, low=low, high=high * 4, least=1e-3, inertia=0.5)
    assert slower.find(worths, 400, costs, extra, step=0)[1] == pytest.approx(high * 2)
    # Where units are worth nothing, both are as low as can be, and twice as much.
    free = PriceRangeController(0.5, 0, low=1.0, high=2.0, least=0.5, inertia=0.0)
    assert free.find(-worths, 400, costs, extra, step=0) == pytest.approx((0.5, 1.0))


def test_corrections_add_up_by_hand() -> None:
    paying = PriceController(0.5, 100)
    integral = paying.integral
    paying.correct(0.9, 50)  # 0.75 is wanted
    paying.correct(0.4, 200)  # 0.5
    assert paying.trim == pytest.approx(integral * (0.15 - 0.1))
    ranged = PriceRangeController(0.5, 100, low=0.1, high=1.0, least=0.01)
    ranged.correct(0.9, 50)
    ranged.correct(0.4, 200)
    assert ranged.trim == pytest.approx(ranged.integral * (0.15 - 0.1))
    exits = ExitPriceController(0.5, 100)
    exits.correct(0.9, 0)
    assert exits.ahead == 0.0  # nothing was spent yet
    exits.spent, exits.ahead = 0.6, 0.2
    exits.correct(0.9, 0)
    assert exits.ahead == pytest.approx(0.2 + 0.1 * (0.9 - 0.6 - 0.2))


def test_a_unit_of_cost_has_the_price_of_a_unit_over_what_it_costs() -> None:
    costs = CostTable.measure(toy_exits(seed=3))
    budget = PriceController(0.5, 100, ruled=(True, False))
    budget.paid = 3.0
    assert budget.k_cpt(costs) == pytest.approx(3.0 / costs.typical)
    budget.exchange = torch.tensor([0.9, 0.25])  # a rule does not learn
    assert budget.k_cpt(costs) == pytest.approx(3.0 * 0.25 / costs.typical)
    ruled = PriceController(0.5, 100, ruled=(True, True))
    ruled.paid, ruled.exchange = 3.0, torch.tensor([0.9, 0.25])
    assert ruled.k_cpt(costs) == pytest.approx(3.0 / costs.typical)
    budget.paid = -1.0
    assert budget.k_cpt(costs) == 0.0


def test_a_running_mean_by_hand() -> None:
    budget = PriceController(0.5, 100)
    before, now = torch.tensor([1.0]), torch.tensor([3.0])
    assert torch.equal(budget._smooth(None, now), now)
    torch.testing.assert_close(budget._smooth(before, now), torch.tensor([budget.inertia + (1 - budget.inertia) * 3.0]))
