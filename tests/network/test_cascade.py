"""A network behind narrow or shallow forms of itself, which are asked first."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable, Part
from routekit.execution.executor import MaskedExecutor, SparseExecutor
from routekit.formats.checkpoint import load, save_network
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.forms import shallow
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import open_to_images, small_view
from tests.toy import toy_noise as images

TWO_FORMS = Cascade(width=(0.25, 0.5))


def of_three_passes(*others: Junction) -> RoutedNetwork:
    """A network that is asked third: of 24 images, some are answered by each pass, at thresholds that differ."""
    torch.manual_seed(0)
    view = small_view()
    view.model.linear.weight.data.mul_(0.2)  # so that it is not nearly certain of all
    network = convert(view, [*others, TWO_FORMS], routers=RouterConfig(hidden=8)).eval()
    if others:
        open_to_images(network)
    x, left = images(24), torch.ones(24, dtype=torch.bool)
    with torch.no_grad():
        leaves = network(x, execution=masked).leaves
        for decider, leaf in zip(network.deciders, leaves, strict=False):
            sure = leaf.softmax(dim=1).amax(dim=1)
            ranked = sure[left].sort().values[int(left.sum()) // 2 :]  # half of those who get here go on, or more
            gap = int(ranked.diff().argmax())  # so that no rounding decides
            decider.bias.copy_(ranked[gap : gap + 2].mean())
            left &= sure <= decider.bias
    first, second = (float(decider.bias) for decider in network.deciders)
    assert abs(first - second) > 1e-3
    return network


@pytest.mark.parametrize(
    "others", [[], [Skip()], [Branch(width=(0.4,))]], ids=["alone", "before skips", "before branches"]
)
@torch.no_grad()
def test_three_passes_with_thresholds_of_their_own_answer_alike_however_they_are_executed(
    others: list[Junction],
) -> None:
    network, x = of_three_passes(*others), images(24)
    want, sparse = network(x, execution=masked), network(x)
    past = want.routes[:, list(network.layout.stops)]
    assert all(past.sum(dim=1).bincount(minlength=3) > 0), "each pass answers some"
    # By hand: whoever is sure enough answers, by the threshold of its own pass.
    first, second, last = want.leaves
    sure = [leaf.softmax(dim=1).amax(dim=1) > d.bias for leaf, d in zip((first, second), network.deciders, strict=True)]
    by_hand = torch.where(sure[0].unsqueeze(1), first, torch.where(sure[1].unsqueeze(1), second, last))
    assert torch.equal(past, torch.stack([~sure[0], ~sure[0] & ~sure[1]], dim=1))
    assert torch.equal(want.logits, by_hand)
    for answer in (sparse, SparseExecutor(network)(x), MaskedExecutor(network)(x)):
        assert torch.equal(answer.routes, want.routes)
        torch.testing.assert_close(answer.logits, want.logits, rtol=1e-4, atol=1e-5)
    executors_agree(network, x, prepared=True)
    executed_as_charged(network, x)


def test_what_three_passes_cost_is_the_sum_of_their_parts() -> None:
    network = convert(small_view(), [TWO_FORMS])
    costs = CostTable.measure(network)
    names = [f"layer{stage}.{place}" for stage in (1, 2, 3) for place in (0, 1)]
    assert [(part.name, part.kind) for part in costs.parts] == [
        ("stem", "stem"),
        *((f"narrow/{name}", "unit") for name in names),
        ("head", "head"),
        ("stop at narrow", "exit"),
        *((f"narrow.1/{name}", "unit") for name in names),
        ("head", "head"),
        ("stop at narrow.1", "exit"),
        *((name, "unit") for name in names),
        ("head", "head"),
    ]
    ends = [0, *(place + 1 for place, part in enumerate(costs.parts) if part.name.startswith("stop")), len(costs.parts)]
    first, second, third = (cost_of(costs.parts[a:b]) for a, b in itertools.pairwise(ends))
    routes = torch.tensor([[False, False], [False, True], [True, False], [True, True]])
    assert costs.of_routes(routes).tolist() == [first, first, first + second, first + second + third]
    assert costs.base.tolist() == [first, second, third]
    assert costs.extra.tolist() == [0.0, 0.0]
    assert (costs.minimum, costs.maximum) == (first, first + second + third)
    # 3x3 convolutions on 8x8 pixels, from 16 channels to those that are kept and back; batch norms at 2 a value.
    by_name = {part.name: part.cost for part in costs.parts}
    for name, kept in (("narrow/", 4), ("narrow.1/", 8), ("", 16)):
        assert by_name[f"{name}layer1.0"] == 64 * 9 * 2 * 16 * kept + 2 * 64 * (kept + 16)
    assert by_name["head"] == 64 * 2 * 2 + 64 * 3  # the average over 2x2 pixels, and three classes
    # The stem is shared: nobody pays for it again.
    assert third == costs.dense - by_name["stem"] == CostTable.measure(convert(small_view())).dense - by_name["stem"]


def cost_of(parts: tuple[Part, ...]) -> float:
    return sum(part.cost for part in parts)


@torch.no_grad()
def test_with_skips_the_last_pass_costs_what_is_run_of_it() -> None:
    network, x = of_three_passes(Skip()), images(24)
    costs, alone = CostTable.measure(network), CostTable.measure(convert(small_view(), [TWO_FORMS]))
    skips = CostTable.measure(convert(small_view(), [Skip()], routers=RouterConfig(hidden=8)))
    routes = network(x).routes
    want = alone.base[0] + alone.base[1] * routes[:, 0]
    stem = alone.parts[0].cost
    want += routes[:, 1] * (skips.of_routes(routes[:, 2:]) - stem)
    assert torch.equal(costs.of_routes(routes), want)


def test_several_narrow_forms_are_asked_from_the_narrowest_on(tmp_path: Path) -> None:
    network, x = of_three_passes(), images(24)
    assert [stop.name for stop in network.stops] == ["narrow", "narrow.1"]
    assert network.columns == ["past narrow", "past narrow.1"]
    assert network.answerers == ["narrow", "narrow.1", "end"]
    assert network.units == 18
    costs = CostTable.measure(network)
    routes = torch.tensor([[False, False], [True, False], [True, True]])
    assert network.units_run(routes).tolist() == [6, 12, 18]
    first, second, whole = costs.of_routes(routes).tolist()
    stem, head = (next(part.cost for part in costs.parts if part.kind == kind) for kind in ("stem", "head"))
    assert first - stem < second - first < whole - second
    assert whole - second == costs.dense - stem
    assert head < first - stem
    served_alike(network, x)
    save_network(tmp_path, network, about={})
    again = load(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(x).logits, network(x).logits)
        assert torch.equal(again(x).routes, network(x).routes)


@pytest.mark.parametrize("width", [(0.5, 0.2), (0.5, 0.5), ()])
def test_forms_out_of_order_are_refused(width: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="from the narrowest to the widest"):
        Cascade(width=width)


def test_a_cascade_is_asked_before_the_exits_of_the_network() -> None:
    both = convert(small_view(), [Exit(at="layer2.0, layer1.0", head="linear"), Cascade(width=0.3)])
    assert [(stop.name, stop.decider.config.rule) for stop in both.stops] == [
        ("narrow", "confidence"),
        ("layer1.0", "learned"),
        ("layer2.0", "learned"),
    ]


@pytest.mark.parametrize(("depth", "kept"), [(0.02, [0]), (0.34, [0, 3, 6]), (0.5, [0, 2, 4, 6]), (1.0, range(9))])
def test_which_units_a_shallow_form_has(depth: float, kept: list[int]) -> None:
    names = [unit.name for unit in shallow(build(spec_of("resnet56")).units, depth)]
    assert names == [f"layer{stage}.{place}" for stage in (1, 2, 3) for place in kept]


@torch.no_grad()
def test_a_shallow_form_by_hand() -> None:
    torch.manual_seed(0)
    view = build(spec_of("resnet20"))
    config = Cascade(depth=0.34)
    assert config.sized(0.8, view).width == 1.0  # as wide as it is, it costs less than it might
    assert Cascade(depth=0.5).sized(0.5, view).width == 0.45  # two units of three
    assert Cascade(depth=0.5, width=0.1).sized(0.5, view).width == 0.1
    network = convert(view, [config], budget=0.8).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = view.stem(x)
    for name in ("layer1.0", "layer2.0", "layer3.0"):
        features = view.model.get_submodule(name)(features)
    torch.testing.assert_close(network(x, execution=masked).leaves[0], view.head(features))
    whole, form = network.forms  # whose stem comes first
    assert [unit.name for unit in form.units] == ["layer1.0", "layer2.0", "layer3.0"]
    assert whole is network.view
    assert len(whole.units) == 9  # the network itself is whole


@torch.no_grad()
def test_a_cascade_with_weights_of_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    view = build(spec_of("resnet20"))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shared, own = (convert(copy.deepcopy(view), [Cascade(width=0.3, own=own)]).eval() for own in (False, True))

    def first(network: RoutedNetwork) -> Tensor:
        return network(x, execution=masked).leaves[0]

    before = first(own)
    # It begins as the shared one does, and stays when the network's own weights change.
    torch.testing.assert_close(before, first(shared))
    own.backbone.layer2[1].conv1.weight.neg_()
    shared.backbone.layer2[1].conv1.weight.neg_()
    assert torch.equal(first(own), before)
    assert not torch.allclose(first(shared), before)
    # The stem is shared all the same.
    own.backbone.conv1.weight.mul_(2)
    assert not torch.allclose(first(own), before)
    own.forms[1].units[0].block.conv1.weight.mul_(2)
    save_network(tmp_path, own, about={})
    again = load(tmp_path)
    assert torch.equal(first(again), first(own))
    assert CostTable.measure(again).minimum == CostTable.measure(shared).minimum
