import itertools

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from pydantic import TypeAdapter, ValidationError

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import example_input
from routekit.cost.table import CostTable
from routekit.cost.target import Cost, OutOfReachError, Reach, parse_target
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.macs import describe
from routekit.network.execution import relaxed
from routekit.routing.decision import Layout
from routekit.routing.gate import soft
from routekit.routing.router import RouterConfig
from tests.toy import ToyNet, open_to_images, toy_view


def test_parts_by_hand() -> None:
    costs = CostTable.measure(convert(toy_view(), [Skip()]))
    flops = ToyNet.FLOPS
    assert {part.name: part.cost for part in costs.parts} == {
        "stem": flops["stem"],
        "body.0": flops["unit"],
        "body.1": flops["unit"],
        "body.2": flops["down"],
        "body.3": flops["last"],
        "head": flops["head"],
    }
    assert costs.dense == sum(part.cost for part in costs.parts)
    assert [part.name for part in costs.parts if part.skippable] == [f"body.{index}" for index in range(4)]
    # Behind these two units, all routers that there are have new features anyway.
    assert costs.extra[2:].tolist() == [flops["down"] - flops["down shortcut"], flops["last"]]


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "torchvision:resnet18", "timm:resnet26d", "timm:resnetv2_50"])
def test_the_parts_sum_to_fvcores_count_of_the_whole(name: str) -> None:
    view = build(spec_of(name, num_classes=10, input_size=None if name.startswith("resnet") else (3, 64, 64)))
    analysis = FlopCountAnalysis(view.model.eval(), example_input(view)).unsupported_ops_warnings(False)
    analysis = analysis.tracer_warnings("none").uncalled_modules_warnings(False)
    costs = CostTable.measure(convert(view))
    assert costs.dense == sum(part.cost for part in costs.parts) == analysis.total()


def test_published_macs_of_the_cifar_family() -> None:
    # Convolutions and the classifier, in MMAC; fvcore adds 2 an element for batch norms and the final pooling.
    for name, macs in {"resnet20": 40.8e6, "resnet56": 125.5e6, "resnet110": 252.9e6}.items():
        total = CostTable.measure(convert(build(spec_of(name)))).dense
        assert macs < total < 1.02 * macs


def test_realized_cost_of_every_route_by_enumeration() -> None:
    costs = CostTable.measure(convert(toy_view(), [Skip()], routers=RouterConfig(hidden=16)))
    f = ToyNet.FLOPS
    # The first three junctions see the same features until a unit runs: one pooling (256), each router 100 more.
    three, two, one, last = 556, 456, 356, 8 * 16 + 8 + 8 * 16 + 32
    for route in itertools.product([0, 1], repeat=4):
        want = f["stem"] + f["head"] + three + last
        want += route[0] * (f["unit"] + two) + route[1] * (f["unit"] + one) + route[3] * f["last"]
        want += f["down"] if route[2] else f["down shortcut"]
        assert costs.of_routes(torch.tensor([route], dtype=torch.bool)).item() == want
    assert costs.minimum == f["stem"] + f["head"] + three + last + f["down shortcut"]
    assert costs.maximum == costs.dense + three + two + one + last


def test_expected_cost_is_differentiable_and_meets_realized_at_hard_gates() -> None:
    network = convert(toy_view(), [Skip()]).eval()
    open_to_images(network)
    costs = CostTable.measure(network)
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        trace = network(x)
    torch.testing.assert_close(costs.expected(trace).double(), costs.of_routes(trace.routes))
    trace = network(x, gate=soft, execution=relaxed)
    costs.expected(trace).sum().backward()
    heads = [router[-1].weight.grad for router in network.routers.routers]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in heads)


def test_what_each_section_costs_an_image_that_reaches_it() -> None:
    layout = Layout(sections=(0, 0, 1), stops=(1,), widths=(1, 1, 1))
    base, extra = torch.tensor([2.0, 3.0]), torch.tensor([10.0, 0.0, 100.0])
    costs = CostTable((), 115.0, extra.double(), base.double(), layout)
    gates = torch.tensor([[0.5, 1.0, 0.25], [0.0, 0.0, 1.0]])
    assert costs.of_sections(gates).tolist() == [[7.0, 28.0], [2.0, 103.0]]


def test_measuring_changes_nothing() -> None:
    network = convert(toy_view(), [Skip()]).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    CostTable.measure(network)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_targets_in_every_notation() -> None:
    costs = CostTable.measure(convert(build(spec_of("resnet110")), [Skip()]))
    assert parse_target("1.5e8", costs) == parse_target("150M", costs) == parse_target("0.15G", costs) == 1.5e8
    assert parse_target("60%", costs) == pytest.approx(0.6 * costs.dense)


@pytest.mark.parametrize("text", ["", "fast", "12e", "1.2.3", "-5%", "nan", "50 %%"])
def test_a_target_that_is_no_cost(text: str) -> None:
    with pytest.raises(InputError, match="is no cost: write"):
        parse_target(text, CostTable.measure(convert(toy_view(), [Skip()])))


@pytest.mark.parametrize("text", ["0.1", "101", "101%", "1e12"])
def test_a_target_out_of_reach_states_the_range(text: str) -> None:
    costs = CostTable.measure(convert(toy_view(), [Skip()]))
    with pytest.raises(InputError, match=r"can cost from .* to .*dense"):
        parse_target(text, costs)


@pytest.mark.parametrize(("text", "way_out"), [("0", "write 1.5e8"), ("0%", "write 1.5e8"), ("50", "write 50%")])
def test_a_target_that_was_meant_otherwise(text: str, way_out: str) -> None:
    with pytest.raises(InputError, match=way_out):
        parse_target(text, CostTable.measure(convert(toy_view(), [Skip()])))


@pytest.mark.parametrize("words", ["auto", "25%", "1.5e8", "l1:25%", "my:own:0.15G"])
def test_a_setting_is_a_cost_in_words(words: str) -> None:
    assert TypeAdapter(Cost).validate_python(words) == words


@pytest.mark.parametrize(("words", "shown"), [("l1:much", "'much'"), ("-1", "'-1'"), ("25%:l1", "'l1'")])
def test_a_setting_that_is_no_cost(words: str, shown: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Cost).validate_python(words)
    (error,) = refused.value.errors()
    assert error["type"] == "cost"
    assert error["msg"].startswith(f"target {shown} is no cost: write 1.5e8, 150M or 60%")


def test_a_target_is_named_where_it_cannot_be_met() -> None:
    reach = Reach(20.0, 100.0, 200.0)
    assert reach.meet("25%") == 50.0
    with pytest.raises(OutOfReachError, match=r"^target 60% = .*\(10% to 50%\)$"):
        reach.meet("60%")
    with pytest.raises(OutOfReachError, match=r"^target 5% = "):
        reach.meet("5%")


def test_costs_are_said_with_their_convention() -> None:
    assert describe(1.5e8) == "1.50e8 FLOPs (MACs; 3.00e8 as 2xMAC)"


def test_what_is_out_of_reach_is_said_in_rounded_shares() -> None:
    reach = Reach(21.4, 98.6, 200.0, cheapest="all skipped", dearest="all run", who="this toy")
    assert reach.check(21.4) == 21.4
    assert reach.check(98.6) == 98.6
    with pytest.raises(OutOfReachError) as refused:
        reach.check(21.3)
    assert refused.value.limit == "it costs at least 11%, all skipped"
    with pytest.raises(
        OutOfReachError, match=r"^target x = .* is out of reach: this toy can cost from .*\(11% to 49%\)$"
    ):
        reach.check(21.3, "target x = ")
    pruned = Reach(21.4, 200.0, 200.0, pruner="l1 cannot prune toy")
    assert pruned.check(21.4) == 21.4
    with pytest.raises(OutOfReachError, match=r"^l1 cannot prune toy to .*: at least .* \(11%\) is left$"):
        pruned.check(21.3)
    with pytest.raises(OutOfReachError, match="is out of reach"):
        pruned.check(200.1)
