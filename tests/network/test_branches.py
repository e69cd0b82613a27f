"""Units that run in full or narrow, and the cascade of a network with a narrow form of itself."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import routekit
from routekit.backbones.load import build, spec_of
from routekit.cost.model import CostModel
from routekit.cost.price import price_for
from routekit.errors import InputError
from routekit.export.checkpoint import load_network, save_network
from routekit.export.compact import compact
from routekit.export.drop import drop_unit
from routekit.network.branches import BranchConfig
from routekit.network.convert import convert
from routekit.network.executor import masked, relaxed
from routekit.network.exits import CascadeConfig, ExitConfig
from routekit.network.heads import shallow
from routekit.routing.decision import Layout
from routekit.routing.router import RouterConfig, banks
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import WAYS, open_to_images, small_branches, small_view
from tests.toy import toy_noise as images

(CASCADE,) = CascadeConfig(keep=0.3, own=False).exits(0.5)
THREE_WAYS = convert(small_view(), RouterConfig(hidden=8), branches=BranchConfig(keep=(0.25,)))
COSTS = CostModel.measure(THREE_WAYS)
DRAWN = {
    "seed": st.integers(0, 10_000),
    "count": st.integers(1, 9),
    "offset": st.floats(-3, 3),
    "cascade": st.booleans(),
    "ways": st.sampled_from(sorted(WAYS)),
}


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "timm:resnet26d"])
def test_a_converted_network_is_the_original_until_it_is_trained(name: str, ways: str) -> None:
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else (3, 64, 64)))
    x = torch.randn(3, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    names = set(view.model.state_dict())
    with torch.no_grad():
        want = view.model.eval()(x)
        branches, skips = WAYS[ways]
        network = convert(view, exits=[CASCADE], branches=branches, skips=skips).eval()
        assert torch.equal(network(x).logits, want)
    assert set(network.backbone.state_dict()) == names
    # A narrow branch has no weights of its own, a candidate has.
    own = [name for name in network.state_dict() if "branches" in name and "conv" in name and "weight" in name]
    assert bool(own) == bool(branches.candidates)


def test_what_a_narrow_unit_costs_by_hand() -> None:
    network = convert(small_view(), RouterConfig(hidden=8), branches=BranchConfig(keep=(0.25,)), skips=False)
    costs = CostModel.measure(network)
    # 8x8 pixels, 16 channels, of which 4 are kept: two convolutions, batch norms at 2 an element.
    assert costs.skip[0] == 64 * 9 * (16 * 4 + 4 * 16) + 2 * 64 * (4 + 16)
    # A unit that down-samples: 16 to 32 channels, of which 8 are kept, on 4x4 pixels.
    assert costs.skip[2] == 16 * 9 * (16 * 8 + 8 * 32) + 2 * 16 * (8 + 32)
    full = CostModel.measure(convert(small_view()))
    assert torch.equal(costs.run, full.run)
    assert costs.dense == full.dense
    # Where the unit can be skipped as well, that is the default, and the narrow branch has a column of its own.
    three = CostModel.measure(convert(small_view(), RouterConfig(hidden=8), branches=BranchConfig(keep=(0.25,))))
    assert three.run[::2].tolist() == full.run.tolist()
    assert three.run[1::2].tolist() == costs.skip.tolist()
    assert three.skip.tolist() == full.skip.tolist()
    # The third unit ends the first group, so that nobody is asked anew after it.
    assert three.surplus[4:6].tolist() == [full.run[2] - full.skip[2], costs.skip[2] - full.skip[2]]
    assert three.maximum == three.base.sum() + three.surplus[::2].sum()


def test_of_several_ways_an_image_takes_the_best_by_hand() -> None:
    layout = Layout(sections=(0, 0, 0, 0), exits=1, width=2)
    margins = torch.tensor([[1.0, 2.0, -1.0, -2.0, 0.5], [3.0, 3.0, -1.0, 0.0, -0.5]])
    routes = [[False, True, False, False, True], [True, False, False, True, False]]
    assert layout.choose(margins).tolist() == routes
    assert (layout.decided(margins) >= 0).tolist() == routes
    assert layout.decided(margins)[0].tolist() == [-torch.inf, 2.0, -1.0, -2.0, 0.5]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 4), min_size=1, max_size=6), st.floats(0.05, 0.95))
def test_the_price_of_several_ways_spends_what_is_wanted(worths: list[tuple[float, ...]], share: float) -> None:
    costs = COSTS
    margins = torch.tensor(worths, dtype=torch.float64).repeat(1, 3)
    wanted = costs.minimum + share * (costs.maximum - costs.minimum)
    stakes = costs.stakes[: len(costs.layout.sections)]

    def spent(price: float) -> float:
        return float(costs.of_routes(costs.layout.choose(margins - price * stakes)).mean())

    price = price_for(margins, costs, wanted)
    assert spent(price) <= wanted
    # It is among the lowest such prices.
    for less in (1e-3, 0.1, 1.0, 5.0):
        assert spent(price - less) > wanted or spent(price - less) == spent(price)


@settings(deadline=None, max_examples=20)
@given(**DRAWN, kind=st.sampled_from(sorted(banks)), prepared=st.booleans())
def test_masked_and_sparse_execution_decide_alike_and_agree(
    seed: int, count: int, offset: float, cascade: bool, ways: str, kind: str, prepared: bool
) -> None:
    network = small_branches(seed, ways=ways, offset=offset, cascade=cascade, kind=kind)
    executors_agree(network, images(count, seed), prepared=prepared)


@settings(deadline=None, max_examples=10)
@given(**DRAWN)
def test_what_is_executed_is_what_the_cost_model_charges(
    seed: int, count: int, offset: float, cascade: bool, ways: str
) -> None:
    executed_as_charged(small_branches(seed, ways=ways, offset=offset, cascade=cascade), images(count, seed))


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("cascade", [True, False])
def test_the_fast_form_and_the_pool_answer_alike(cascade: bool, ways: str) -> None:
    served_alike(small_branches(3, ways=ways, cascade=cascade), images(16, 3))


@pytest.mark.parametrize("ways", WAYS)
def test_all_ways_learn_from_one_step(ways: str) -> None:
    network = small_branches(cascade=True, ways=ways).train()
    trace = network(images(8), execution=relaxed)
    torch.stack([leaf.square().mean() for leaf in trace.leaves]).sum().backward()
    learned = {id(parameter) for parameter in network.backbone_parameters()}
    assert all(parameter.grad is not None for parameter in network.backbone_parameters())
    # The weights are there once: an optimizer must not step them twice.
    assert len(learned) == len(network.backbone_parameters())
    assert learned | {id(p) for p in network.routing_parameters()} == {id(p) for p in network.parameters()}


def test_what_images_can_choose_at_a_unit() -> None:
    three = BranchConfig(keep=(0.5, 0.25), candidates=1)
    network = convert(small_view(), branches=three, skips=False)
    network.stand_alone()
    both, four = convert(small_view()), convert(small_view(), branches=three)
    kinds = [
        ["branch" if isinstance(sink, torch.nn.Module) else sink.value for sink in each.junctions[0].sinks]
        for each in (both, four, network)
    ]
    assert kinds == [["run", "skip"], ["run", *["branch"] * 3, "skip"], ["run", *["branch"] * 3]]
    x = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    unit = network.junctions[0]
    narrowest = unit.branches[-1]
    with torch.no_grad():
        assert torch.equal(unit.run(x), unit.block(x))
        assert torch.equal(unit.take(x, -1), narrowest(x))
        drop_unit(unit)
        assert (unit.dropped, unit.decides, unit.sinks) == (True, False, (narrowest,))
        assert torch.equal(unit.run(x), narrowest(x)), "what is left of it is its default"


@pytest.mark.parametrize(("cascade", "ways"), [(True, "narrow"), (False, "narrow"), (False, "all")])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, cascade: bool, ways: str) -> None:
    network = small_resnet20(cascade, ways)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = network(x)
    routes, width = want.routes.clone(), network.layout.width
    # One unit does the default for all, one runs in full.
    routes[:, 2 * width : 3 * width], routes[:, 4 * width : 5 * width] = False, torch.arange(width) == 0
    small = compact(network, routes)
    assert "layer1.2" in small.dropped
    assert "layer2.1" in small.settled
    for name, kept in {"whole": network, "compact": small.network}.items():
        save_network(tmp_path / name, kept, about={})
        again = load_network(tmp_path / name)
        with torch.no_grad():
            assert torch.equal(again(x).logits, kept(x).logits)
    with torch.no_grad():
        kept = [column for column in range(routes.shape[1]) if network.columns[column] in small.network.columns]
        again = small.network(x, routes=routes[:, kept])
        torch.testing.assert_close(again.logits, network(x, routes=routes).logits, rtol=1e-3, atol=1e-3)
    if ways == "all":
        return
    # What is shared is not stored twice: only what the narrow forms have of their own.
    sizes = {name: (tmp_path / name / "network.safetensors").stat().st_size for name in ("whole", "compact")}
    save_network(tmp_path / "plain", convert(build(spec_of("resnet20"))), about={})
    assert sizes["whole"] < 1.15 * (tmp_path / "plain" / "network.safetensors").stat().st_size


def small_resnet20(cascade: bool, ways: str) -> routekit.RoutedNetwork:
    torch.manual_seed(0)
    branches, skips = WAYS[ways]
    exits = [CASCADE] if cascade else []
    network = convert(build(spec_of("resnet20")), exits=exits, branches=branches, skips=skips).eval()
    open_to_images(network)
    return network


def test_where_two_exits_would_lie_there_is_one() -> None:
    both = convert(small_view(), exits=[CASCADE, ExitConfig(at="layer1.0,layer2.0", head="linear")])
    assert [(each.after, each.config.head) for each in both.exits] == [
        ("stem", "narrow"),
        ("layer1.0", "linear"),
        ("layer2.0", "linear"),
    ]


def test_units_without_a_narrow_form_are_refused() -> None:
    view = build(spec_of("torchvision:resnext50_32x4d", num_classes=10, input_size=(3, 64, 64)))
    with pytest.raises(InputError, match="a Bottleneck has no narrow form"):
        convert(view, branches=BranchConfig())


def test_branches_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BranchConfig(keep=())
    with pytest.raises(ValueError, match="from the widest to the narrowest"):
        BranchConfig(keep=(0.2, 0.6))


@pytest.mark.parametrize(("depth", "kept"), [(0.02, [0]), (0.34, [0, 3, 6]), (0.5, [0, 2, 4, 6]), (1.0, range(9))])
def test_which_units_a_shallow_form_has(depth: float, kept: list[int]) -> None:
    names = [unit.name for unit in shallow(build(spec_of("resnet56")).units, depth)]
    assert names == [f"layer{stage}.{place}" for stage in (1, 2, 3) for place in kept]


@torch.no_grad()
def test_a_shallow_form_by_hand() -> None:
    torch.manual_seed(0)
    view = build(spec_of("resnet20"))
    (config,) = CascadeConfig(depth=0.34).exits(0.8)
    assert config.keep == 1.0  # as wide as it is, it costs less than it might
    assert CascadeConfig(depth=0.5).exits(0.5)[0].keep == 0.6
    network = convert(view, exits=[config], skips=False).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = view.stem(x)
    for name in ("layer1.0", "layer2.0", "layer3.0"):
        features = view.model.get_submodule(name)(features)
    torch.testing.assert_close(network(x, execution=masked).leaves[0], view.head(features))
    assert len(network.exits[0].head.blocks) == 3
    assert len(network.view.units) == 10  # the network itself, and the place before it, are whole


@torch.no_grad()
def test_a_cascade_with_weights_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    view = build(spec_of("resnet20"))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shared, own = (
        convert(copy.deepcopy(view), exits=CascadeConfig(keep=0.3, own=own).exits(0.5), skips=False).eval()
        for own in (False, True)
    )
    first = own(x, execution=masked).leaves[0]
    # It begins as the shared one does, and stays when the network's own weights change.
    torch.testing.assert_close(first, shared(x, execution=masked).leaves[0])
    own.backbone.layer2[1].conv1.weight.neg_()
    shared.backbone.layer2[1].conv1.weight.neg_()
    assert torch.equal(own(x, execution=masked).leaves[0], first)
    assert not torch.allclose(shared(x, execution=masked).leaves[0], first)
    own.exits[0].head.blocks[0].conv1.weight.mul_(2)
    save_network(tmp_path, own, about={})
    again = load_network(tmp_path)
    assert torch.equal(again(x, execution=masked).leaves[0], own(x, execution=masked).leaves[0])
    assert CostModel.measure(again).minimum == CostModel.measure(shared).minimum


def test_several_narrow_forms_are_asked_from_the_narrowest_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exits = CascadeConfig(keep=(0.25, 0.5), own=True).exits(0.5)
    network = convert(small_view(), exits=exits, skips=False).eval()
    assert [each.after for each in network.exits] == ["stem", "stem.1"]
    assert network.columns == ["past stem", "past stem.1"]
    assert network.units == 6
    costs = CostModel.measure(network)
    first, second, whole = costs.of_routes(torch.tensor([[False, False], [True, False], [True, True]])).tolist()
    stem, head = (next(part.flops for part in costs.parts if part.kind == kind) for kind in ("stem", "head"))
    assert first - stem < second - first < whole - second
    assert whole - second == costs.dense - stem
    assert head < first - stem
    x = images(12)
    with torch.no_grad():
        for each in network.exits:  # two thirds of those who get there go on
            sure = network(x, execution=masked).leaves[network.exits.index(each)].softmax(dim=1).amax(dim=1)
            each.offset.copy_(sure.quantile(0.6) + 1e-3)
    executed_as_charged(network, x)
    executors_agree(network, x, prepared=True)
    served_alike(network, x)
    save_network(tmp_path, network, about={})
    again = load_network(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(x).logits, network(x).logits)
        assert torch.equal(again(x).routes, network(x).routes)
    with pytest.raises(ValueError, match="from the narrowest to the widest"):
        CascadeConfig(keep=(0.5, 0.2))
