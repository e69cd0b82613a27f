"""Units that run in full or narrow, or as one of several copies."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.cost.price import price_for
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.formats.drop import drop_unit
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import relaxed
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import Layout
from routekit.routing.router import RouterConfig, banks
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import SINKS, open_to_images, small_branches, small_view
from tests.toy import toy_noise as images

CASCADE = Cascade(width=0.3, own=False)
THREE_SINKS = convert(small_view(), [Skip(), Branch(width=(0.25,))], routers=RouterConfig(hidden=8))
COSTS = CostTable.measure(THREE_SINKS)
DRAWN = {
    "seed": st.integers(0, 10_000),
    "count": st.integers(1, 9),
    "bias": st.floats(-3, 3),
    "cascade": st.booleans(),
    "sinks": st.sampled_from(sorted(SINKS)),
}


@cache
def original(name: str) -> tuple[Backbone, Tensor, Tensor]:
    """A network, images, and what it answers."""
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else (3, 64, 64)))
    x = torch.randn(3, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return view, x, view.model.eval()(x)


@pytest.mark.parametrize("sinks", SINKS)
@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "timm:resnet26d"])
def test_a_converted_network_is_the_original_until_it_is_trained(name: str, sinks: str) -> None:
    view, x, want = original(name)
    names = set(view.model.state_dict())
    with torch.no_grad():
        network = convert(view, [CASCADE, *SINKS[sinks]]).eval()
        assert torch.equal(network(x).logits, want)
    assert set(network.backbone.state_dict()) == names
    # A narrow branch has no weights of its own, a candidate has.
    own = [name for name in network.state_dict() if "branches" in name and "conv" in name and "weight" in name]
    assert bool(own) == any(isinstance(each, Branch) and each.candidates > 0 for each in SINKS[sinks])


def test_what_a_narrow_unit_costs_by_hand() -> None:
    routers = RouterConfig(hidden=8)
    costs = CostTable.measure(convert(small_view(), [Branch(width=(0.25,))], routers=routers))
    run = [part.cost for part in costs.parts if part.skippable]
    narrow = [full - more for full, more in zip(run, costs.extra.tolist(), strict=True)]
    # 8x8 pixels, 16 channels, of which 4 are kept: two convolutions, batch norms at 2 an element.
    assert narrow[0] == 64 * 9 * (16 * 4 + 4 * 16) + 2 * 64 * (4 + 16)
    # A unit that down-samples: 16 to 32 channels, of which 8 are kept, on 4x4 pixels.
    assert narrow[2] == 16 * 9 * (16 * 8 + 8 * 32) + 2 * 16 * (8 + 32)
    full = CostTable.measure(convert(small_view(), [Skip()]))
    assert run == [part.cost for part in full.parts if part.skippable]
    assert costs.dense == full.dense
    # Where the unit can be skipped as well, that is the default, and the narrow branch has a column of its own.
    three = CostTable.measure(convert(small_view(), [Skip(), Branch(width=(0.25,))], routers=routers))
    assert [part.cost for part in three.parts if part.skippable] == run
    # Whichever of the two the first unit does, the router after it is asked anew: to skip it costs nothing.
    assert three.extra[0] - run[0] == three.extra[1] - narrow[0] > 0
    # The third unit ends the first group, so that nobody is asked anew after it.
    skip = run[2] - float(full.extra[2])
    assert three.extra[4:6].tolist() == [run[2] - skip, narrow[2] - skip]
    assert three.maximum == three.base.sum() + three.extra[::2].sum()


def test_of_several_sinks_an_image_takes_the_best_by_hand() -> None:
    layout = Layout(sections=(0,) * 5, stops=(4,), widths=(2, 2, 1))
    margins = torch.tensor([[1.0, 2.0, -1.0, -2.0, 0.5], [3.0, 3.0, -1.0, 0.0, -0.5]])
    routes = [[False, True, False, False, True], [True, False, False, True, False]]
    assert layout.choose(margins).tolist() == routes
    assert (layout.decided(margins) >= 0).tolist() == routes
    assert layout.decided(margins)[0].tolist() == [-torch.inf, 2.0, -1.0, -2.0, 0.5]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 4), min_size=1, max_size=6), st.floats(0.05, 0.95))
def test_the_price_of_several_sinks_spends_what_is_wanted(worths: list[tuple[float, ...]], share: float) -> None:
    costs = COSTS
    margins = torch.tensor(worths, dtype=torch.float64).repeat(1, 3)
    wanted = costs.minimum + share * (costs.maximum - costs.minimum)

    def spent(price: float) -> float:
        return float(costs.of_routes(costs.layout.choose(margins - price * costs.cost_share)).mean())

    price = price_for(margins, costs, wanted, costs.cost_share)
    assert spent(price) <= wanted
    # It is among the lowest such prices.
    for less in (1e-3, 0.1, 1.0, 5.0):
        assert spent(price - less) > wanted or spent(price - less) == spent(price)


@settings(deadline=None, max_examples=15)
@given(**DRAWN, kind=st.sampled_from(sorted(banks)), prepared=st.booleans())
def test_masked_and_sparse_execution_decide_alike_and_agree(
    seed: int, count: int, bias: float, cascade: bool, sinks: str, kind: str, prepared: bool
) -> None:
    network = small_branches(seed, sinks=sinks, bias=bias, cascade=cascade, kind=kind)
    executors_agree(network, images(count, seed), prepared=prepared)


@settings(deadline=None, max_examples=7)
@given(**DRAWN)
def test_what_is_executed_is_what_the_cost_table_charges(
    seed: int, count: int, bias: float, cascade: bool, sinks: str
) -> None:
    executed_as_charged(small_branches(seed, sinks=sinks, bias=bias, cascade=cascade), images(count, seed))


@pytest.mark.parametrize("sinks", SINKS)
@pytest.mark.parametrize("cascade", [True, False])
def test_the_fast_form_answers_alike(cascade: bool, sinks: str) -> None:
    served_alike(small_branches(3, sinks=sinks, cascade=cascade), images(16, 3))


@pytest.mark.parametrize("sinks", SINKS)
def test_all_sinks_learn_from_one_step(sinks: str) -> None:
    network = small_branches(cascade=True, sinks=sinks).train()
    trace = network(images(8), execution=relaxed)
    torch.stack([leaf.square().mean() for leaf in trace.leaves]).sum().backward()
    learned = {id(parameter) for parameter in network.computing_parameters()}
    assert all(parameter.grad is not None for parameter in network.computing_parameters())
    # The weights are there once: an optimizer must not step them twice.
    assert len(learned) == len(network.computing_parameters())
    assert learned | {id(p) for p in network.routing_parameters()} == {id(p) for p in network.parameters()}


def test_what_images_can_choose_at_a_unit() -> None:
    three = Branch(width=(0.5, 0.25), candidates=1)
    network = convert(small_view(), [three])
    network.stand_alone()
    both, four = convert(small_view(), [Skip()]), convert(small_view(), [three, Skip()])
    kinds = [
        ["branch" if isinstance(sink, torch.nn.Module) else sink.value for sink in each.junctions[0].sinks]
        for each in (both, four, network)
    ]
    assert kinds == [["run", "skip"], ["run", *["branch"] * 3, "skip"], ["run", *["branch"] * 3]]
    assert network.columns[:4] == ["layer1.0", "layer1.0 branch 1", "layer1.0 branch 2", "layer1.1"]
    x = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    unit = network.junctions[0]
    narrowest = unit.branches[-1]
    with torch.no_grad():
        assert torch.equal(unit.run(x), unit.block(x))
        assert torch.equal(unit.take(x, -1), narrowest(x))
        drop_unit(unit)
        assert (unit.dropped, unit.decides, unit.sinks) == (True, False, (narrowest,))
        assert torch.equal(unit.run(x), narrowest(x)), "what is left of it is its default"


@pytest.mark.parametrize(
    ("cascade", "sinks"), [(True, "narrow"), (False, "narrow"), (False, "all"), (False, "candidate")]
)
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, cascade: bool, sinks: str) -> None:
    network = small_resnet20(cascade, sinks)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = network(x)
    routes = want.routes.clone()
    # One unit does the default for all, one runs in full.
    for column, name in enumerate(network.columns):
        if name.startswith(("past", "layer1.2")):
            routes[:, column] = name.startswith("past")
        elif name.startswith("layer2.1"):
            routes[:, column] = name == "layer2.1"
    small = compact(network, routes)
    # A whole narrow form of its own would take more than it saves. What is shared can neither go nor take in a norm.
    assert ("layer1.2" in small.dropped) == (not cascade)
    assert bool(small.folded) == (not cascade)
    assert "layer2.1" in small.settled
    assert parameters(small.network) <= parameters(network)
    for name, kept in {"whole": network, "compact": small.network}.items():
        save_network(tmp_path / name, kept, about={})
        again = load(tmp_path / name)
        with torch.no_grad():
            assert torch.equal(again(x).logits, kept(x).logits)
    with torch.no_grad():
        kept = [column for column in range(routes.shape[1]) if network.columns[column] in small.network.columns]
        again = small.network(x, routes=routes[:, kept])
        torch.testing.assert_close(again.logits, network(x, routes=routes).logits, rtol=1e-3, atol=1e-3)
    if sinks != "narrow":
        return
    # What is shared is not stored twice: only what the narrow forms have of their own.
    sizes = {name: (tmp_path / name / "network.safetensors").stat().st_size for name in ("whole", "compact")}
    save_network(tmp_path / "plain", convert(build(spec_of("resnet20"))), about={})
    plain = (tmp_path / "plain" / "network.safetensors").stat().st_size
    assert sizes["compact"] < sizes["whole"] < 1.15 * plain


def parameters(network: RoutedNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def small_resnet20(cascade: bool, sinks: str) -> RoutedNetwork:
    torch.manual_seed(0)
    network = convert(build(spec_of("resnet20")), [*SINKS[sinks], *([CASCADE] if cascade else [])]).eval()
    open_to_images(network)
    return network


def test_units_without_a_narrow_form_are_refused() -> None:
    view = build(spec_of("torchvision:resnext50_32x4d", num_classes=10, input_size=(3, 64, 64)))
    with pytest.raises(InputError, match="a Bottleneck has no narrow form"):
        convert(view, [Branch()])


def test_branches_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Branch(width=())
    with pytest.raises(ValueError, match="from the widest to the narrowest"):
        Branch(width=(0.2, 0.6))


def test_where_the_width_is_open_it_fits_the_budget() -> None:
    """What a unit costs at the narrowest is 0.6 of the budget."""
    for budget, width in ((0.5, 0.3), (0.8, 0.48), (2.0, 0.6), (0.001, 0.01)):
        assert Branch().sized(budget, small_view()) == Branch(width=(width,))
    (source,) = convert(small_view(), [Branch()], budget=0.4).blueprint.sources
    assert source.junctions == (Branch(width=(0.24,)),)
