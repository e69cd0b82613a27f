"""The thresholds of a cascade of networks meet a mean cost on the images that they are set on."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from routekit.cost.price import price_for
from routekit.cost.table import CostTable, Part
from routekit.cost.target import OutOfReachError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.junctions.convert import join
from routekit.network.network import RoutedNetwork
from routekit.pipeline.join import set_deferral
from routekit.pipeline.machine import Hooks, Machine
from routekit.routing.decision import Layout
from tests.toy import toy_data, toy_routed

CERTAINTIES = [0.1, 0.25, 0.5, 0.75, 1.0]


def table(*networks: float, unit: float = 0.0) -> CostTable:
    """What networks in a row cost, each with a unit that not all images run; columns are units and stops in turn."""
    count = len(networks)
    columns = 2 * count - 1
    return CostTable(
        parts=(Part("all", "unit", networks[-1], skippable=False),),
        dense=networks[-1],
        extra=torch.tensor([unit, 0.0] * count, dtype=torch.float64)[:columns],
        base=torch.tensor(networks, dtype=torch.float64),
        layout=Layout(tuple(place // 2 for place in range(columns)), tuple(range(1, columns, 2)), (1,) * columns),
    )


class Cascade:
    """Images of which is known how certain each network would be `[N, stops]`, and which of them run `units`."""

    def __init__(self, costs: CostTable, certainties: Tensor, units: Tensor | None = None) -> None:
        self.costs, self.stops = costs, list(costs.layout.stops)
        self.margins = torch.ones(len(certainties), len(costs.layout.sections), dtype=torch.float64)
        if units is not None:
            self.margins[:, ::2] = torch.where(units, 1.0, -1.0)
        # As of a rule whose threshold is 1: all go on.
        self.margins[:, 1::2] = 1 - certainties.double()
        # Only what is asked for by stops has a price.
        self.share = torch.zeros_like(costs.cost_share)
        self.share[self.stops] = costs.cost_share[self.stops]

    def cost_at(self, price: float) -> float:
        """The mean cost at a price."""
        return float(self.costs.of_routes(self.costs.layout.choose(self.margins - price * self.share)).mean())

    def price(self, wanted: float) -> float:
        """The price that meets a mean cost."""
        return price_for(self.margins, self.costs, wanted, cost_share=self.share)

    def thresholds(self, wanted: float) -> list[float]:
        """The thresholds that meet a mean cost: an image goes on at a certainty of at most these."""
        return (1 - self.price(wanted) * self.share[self.stops]).tolist()

    def prices(self) -> list[float]:
        """Prices that decide everything there is to decide: one between each two at which something changes."""
        worths = (self.margins / self.share)[:, self.stops].unique()
        return [-1.0, *((worths[:-1] + worths[1:]) / 2).tolist(), float(worths[-1]) + 1]


def test_two_networks_by_hand() -> None:
    # The first costs 1, the second 4; of four images, those of a certainty of at most the threshold go on.
    certainties = torch.tensor([[0.9], [0.5], [0.7], [0.3]], dtype=torch.float64)
    cascade = Cascade(table(1, 4), certainties)
    assert cascade.costs.cost_share.tolist() == [0, 1, 0]
    assert [cascade.cost_at(1 - t) for t in (0.2, 0.31, 0.6, 0.71, 1.0)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert cascade.thresholds(3.0) == pytest.approx([0.6])  # between the certainties of two images
    assert cascade.thresholds(3.9) == pytest.approx([0.6])  # no more than is wanted
    assert cascade.thresholds(4.0) == pytest.approx([0.8])
    assert cascade.thresholds(1.0)[0] < 0.3
    assert cascade.thresholds(5.0)[0] >= 0.9
    assert cascade.cost_at(cascade.price(5.0)) == 5.0


def test_three_networks_by_hand() -> None:
    # Who is sure at the second network does not pay for the third, whatever the third would say.
    costs, certainties = table(1, 10, 100), torch.tensor([[0.2, 0.9], [0.2, 0.2], [0.9, 0.2]])
    routes = torch.ones(3, 5, dtype=torch.bool)
    routes[:, costs.layout.stops] = certainties <= 0.5
    assert float(costs.of_routes(routes).mean()) == pytest.approx((3 * 1 + 2 * 10 + 100) / 3)
    # To go on to a network that is ten times dearer, ten times as much doubt is asked for.
    cascade = Cascade(costs, certainties)
    doubts = [1 - threshold for threshold in cascade.thresholds(60.0)]
    assert doubts[1] == pytest.approx(10 * doubts[0])


@given(
    rows=st.lists(st.tuples(*[st.sampled_from(CERTAINTIES)] * 2, *[st.booleans()] * 3), min_size=1, max_size=8),
    networks=st.tuples(*[st.integers(1, 9)] * 3),
    unit=st.integers(0, 9),
    share=st.floats(0, 1),
)
@example(rows=[(0.1, 0.1, True, False, True)] * 3, networks=(3, 1, 7), unit=1, share=1.0)
def test_no_other_price_spends_more_of_what_is_wanted(
    rows: list[tuple[float, ...]], networks: tuple[int, ...], unit: int, share: float
) -> None:
    known = torch.tensor(rows, dtype=torch.float64)
    cascade = Cascade(table(*networks, unit=unit), known[:, :2], known[:, 2:] > 0)
    costs = [cascade.cost_at(price) for price in cascade.prices()]
    assert costs == sorted(costs, reverse=True)
    least, most = costs[-1], costs[0]
    wanted = most if share == 1 else least + share * (most - least)
    spent = cascade.cost_at(cascade.price(wanted))
    assert spent <= wanted
    assert spent == pytest.approx(max(cost for cost in costs if cost <= wanted))


def joined(rule: str, seeds: tuple[int, ...] = (0, 1)) -> tuple[RoutedNetwork, CostTable, list[float]]:
    """A cascade, its cost table, and what it costs if nobody goes on, or everybody."""
    network = join([toy_routed(seed=seed) for seed in seeds], rule=rule)
    costs, val = CostTable.measure(network), toy_data().val
    bounds = []
    for bias in (-1.0, 1.0):
        for decider in network.deciders:
            decider.bias.fill_(bias)
        bounds.append(evaluate(network, val, costs).cost)
    return network, costs, bounds


def defer(network: RoutedNetwork, costs: CostTable, target: float, warnings: list[str] | None = None) -> float:
    machine = Machine("cpu", Hooks(warn=lambda sentence: None if warnings is None else warnings.append(sentence)))
    rule = network.deciders[0].config.rule
    return set_deferral(network, toy_data(), costs, target, costs.dense, rule, machine)


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
@pytest.mark.parametrize("seeds", [(0, 1), (0, 2, 1)])
def test_what_was_set_is_what_is_measured(rule: str, seeds: tuple[int, ...]) -> None:
    network, costs, (least, most) = joined(rule, seeds)
    units = [bank.bias.clone() for bank in network.banks]
    target, val = 0.5 * (least + most), toy_data().val
    found = defer(network, costs, target)
    measured = evaluate(network, val, costs)
    assert measured.cost == pytest.approx(found)
    assert measured.cost == pytest.approx(target, rel=0.03)
    assert measured.cost <= target + 1e-6
    # What the networks decide themselves stays as it is.
    assert all(torch.equal(bank.bias, before) for bank, before in zip(network.banks, units, strict=True))
    # Who answers is surer than who goes on.
    margins = evaluate(network, val, costs, everywhere=True).margins[:, costs.layout.stops[0]]
    assert torch.equal(margins >= 0, measured.routes[:, costs.layout.stops[0]])


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_nobody_goes_on_for_the_least_and_everybody_for_the_most(rule: str) -> None:
    network, costs, bounds = joined(rule)
    for target in bounds:
        assert defer(network, costs, target) == pytest.approx(target)
        assert evaluate(network, toy_data().val, costs).cost == pytest.approx(target)


def test_a_cost_out_of_reach_says_what_is_in_reach_and_changes_nothing() -> None:
    network, costs, (least, most) = joined("confidence")
    before = network.bias
    for target in (0.9 * least, 1.1 * most):
        with pytest.raises(OutOfReachError, match=r"if the first answer always counts, to .* if all are always asked"):
            defer(network, costs, target)
    assert torch.equal(network.bias, before)


def test_a_dearer_network_before_a_cheaper_one_is_warned_of() -> None:
    warnings: list[str] = []
    network = join([toy_routed(seed=0, bias=9.0), toy_routed(seed=1, bias=-9.0)])
    costs = CostTable.measure(network)
    defer(network, costs, 0.8 * costs.dense, warnings)
    assert warnings == ["a network of this cascade is dearer than the one after it: give the cheapest first"]


def test_a_budget_for_units_and_stops_moves_both() -> None:
    network, costs, (least, most) = joined("confidence")
    before, val = network.bias, toy_data().val
    target = 0.5 * (least + most)
    found = calibrate(network, val, costs, 0.8 * target)
    assert found == evaluate(network, val, costs).cost
    assert found == pytest.approx(0.8 * target, rel=0.05)
    assert ((network.bias - before) < 0).all()
