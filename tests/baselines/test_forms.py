"""Forms of networks: what they cost, and that they answer alike wherever they run."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import routekit
from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.baselines.forms import form_of, kind_for, reach_of_form
from routekit.cost.table import CostTable
from routekit.cost.target import OutOfReachError
from routekit.errors import InputError
from routekit.execution.executor import SparseExecutor
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.passes import save_passes
from routekit.formats.onnx.piece import Exporter
from routekit.formats.openvino import save_openvino
from routekit.junctions.again import look_again
from routekit.junctions.convert import convert, join
from routekit.network.network import RoutedNetwork
from routekit.runtime.load import load_runtime
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.network.test_again import set_thresholds
from tests.runtime.parity import ABOUT, images, same
from tests.toy import small_view


def view_of(name: str) -> Backbone:
    torch.manual_seed(0)
    cifar = not name.startswith("timm:")
    return build(spec_of(name, num_classes=10, input_size=(3, 32, 32) if cifar else (3, 64, 64)))


@pytest.mark.parametrize("kind", ["depgraph", "l1", "distributedk", "firstk", "resolution"])
def test_a_form_costs_what_is_asked_and_has_weights_of_its_own(kind: str) -> None:
    view = view_of("resnet20")
    before = copy.deepcopy(view.model.state_dict())
    whole = reach_of_form(view, kind).whole
    form = form_of(view, kind, 0.3 * whole)
    assert form.is_static
    assert 0.2 * whole < CostTable.measure(form).dense < 0.31 * whole
    with torch.no_grad():
        assert form(torch.randn(2, 3, 32, 32)).logits.shape == (2, 10)
        for parameter in form.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in view.model.state_dict().items())
    assert view.resolution is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pyramid3", "depgraph"),
        ("timm:resnet10t", "depgraph"),
        ("timm:resnetblur18", "depgraph"),
        ("timm:ecaresnet26t", "depgraph"),
        ("timm:seresnext26d_32x4d", "depgraph"),
        ("timm:resnetv2_18", "depgraph"),
        ("timm:resnest14d", "depgraph"),
        ("timm:skresnet18", "distributedk"),
    ],
)
def test_every_family_has_a_form_at_a_quarter_of_its_cost(name: str, kind: str, tmp_path: Path) -> None:
    view = view_of(name)
    whole = CostTable.measure(convert(view)).dense
    assert kind_for(view, 0.25 * whole) == kind
    form = form_of(view, kind, 0.25 * whole)
    assert CostTable.measure(form).dense <= 1.1 * 0.25 * whole
    save_network(tmp_path, form, about={})
    x = torch.randn(2, *view.spec.input_size)
    with torch.no_grad():
        assert torch.equal(load(tmp_path)(x).logits, form(x).logits)


@pytest.mark.parametrize("name", ["timm:seresnext26d_32x4d"])
def test_grouped_convolutions_keep_their_groups(name: str) -> None:
    view = view_of(name)
    form = form_of(view, "depgraph", 0.2 * reach_of_form(view, "depgraph").whole)
    before, after = (
        [module for module in model.modules() if isinstance(module, torch.nn.Conv2d) and module.groups > 1]
        for model in (view.model, form.backbone)
    )
    assert [conv.groups for conv in after] == [conv.groups for conv in before]
    assert all(conv.out_channels % conv.groups == conv.in_channels % conv.groups == 0 for conv in after)
    assert sum(conv.out_channels for conv in after) < sum(conv.out_channels for conv in before)


def test_a_twentieth_is_in_reach() -> None:
    for name in ("resnet56", "timm:resnet18", "timm:resnet50"):
        reach = reach_of_form(view_of(name), "depgraph")
        assert reach.least < 0.05 * reach.whole


def test_what_no_form_can_do() -> None:
    view = view_of("resnet20")
    whole = reach_of_form(view, "l1").whole
    assert kind_for(view, 0.12 * whole, ["l1", "depgraph"]) == "depgraph"
    with pytest.raises(OutOfReachError, match=r"no form of resnet20 costs .*: at least .* is left"):
        kind_for(view, 0.001 * whole)
    with pytest.raises(InputError, match="did you mean resolution"):
        reach_of_form(view, "resolutoin")
    with pytest.raises(OutOfReachError, match="at the lowest resolution"):
        form_of(view, "resolution", 0.1 * whole)
    with pytest.raises(InputError, match="does not take images of a lower resolution"):
        reach_of_form(low().view, "resolution")
    with pytest.raises(InputError, match="depgraph cannot prune timm:resnetv2_50d_evos, whose blocks it does not know"):
        reach_of_form(view_of("timm:resnetv2_50d_evos"), "depgraph")


def low(seed: int = 0) -> RoutedNetwork:
    """A form that sees the images of 8 pixels in 4."""
    view = small_view(seed, depth=8)
    return form_of(view, "resolution", 0.5 * reach_of_form(view, "resolution").whole)


def ladder(average: bool = False) -> RoutedNetwork:
    network = join([low(3), convert(small_view(4, depth=8))], average=average)
    set_thresholds(network)
    return network


def shrunk(x: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(x, (4, 4), mode="bilinear")


@torch.no_grad()
def test_at_a_lower_resolution_it_answers_as_the_network_does_to_smaller_images(tmp_path: Path) -> None:
    network, x = low(), images(7)
    want = small_view(depth=8).model.eval()(shrunk(x))
    torch.testing.assert_close(network(x).logits, want)
    table = CostTable.measure(network)
    assert table.dense == pytest.approx(0.25 * CostTable.measure(convert(small_view(depth=8))).dense, rel=0.05)
    assert not [name for name in table.uncounted if "sample" in name or "interpolate" in name]
    torch.testing.assert_close(SparseExecutor(network)(x).logits, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(routekit.optimize(network)(x).logits, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.without_routing()(x).logits, want)
    save_network(tmp_path, network, about={})
    again = load(tmp_path)
    assert again.view.resolution == (4, 4)
    assert torch.equal(again(x).logits, network(x).logits)
    # Files of former versions say nothing of it.
    file = tmp_path / "network.json"
    file.write_text(file.read_text().replace('"resolution"', '"former"'))
    assert load(tmp_path, verify=False).view.resolution is None


@torch.no_grad()
@pytest.mark.parametrize("average", [False, True])
def test_networks_at_two_resolutions_are_joined(average: bool, tmp_path: Path) -> None:
    network, x = ladder(average), images(16)
    executed_as_charged(network, x)
    executors_agree(network, x, prepared=True)
    served_alike(network, x)
    less = compact(network, network(x).routes).network
    torch.testing.assert_close(less(x).logits, network(x).logits, rtol=1e-4, atol=1e-5)
    for each in (network, less):
        save_network(tmp_path, each, about={})
        assert torch.equal(load(tmp_path)(x).logits, each(x).logits)


MADE = {"alone": low, "joined": ladder, "averaged": lambda: ladder(average=True), "looks again": lambda: look(ladder)}


def look(_: object) -> RoutedNetwork:
    network = look_again(decides())
    set_thresholds(network)
    return network


def decides() -> RoutedNetwork:
    from routekit.junctions.exit import Exit

    view = small_view(depth=8)
    view.model.linear.weight.data.mul_(0.2)
    view.resolution = (4, 4)
    return convert(view, [Exit(at="layer2.0", head="linear", rule="confidence")]).eval()


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_in_onnx_they_answer_alike(name: str, native: bool, tmp_path: Path, exporter: Exporter) -> None:
    network = MADE[name]()
    save_onnx(tmp_path, network, ABOUT, exporter, native=native)
    same(load_runtime(tmp_path), network, counts=(1, 2, 7, 16))


@pytest.mark.parametrize("name", ["alone", "joined", "averaged"])
def test_in_passes_they_answer_alike(name: str, tmp_path: Path, exporter: Exporter) -> None:
    network = MADE[name]()
    save_passes(tmp_path, network, ABOUT, exporter)
    same(load_runtime(tmp_path), network, counts=(1, 2, 7, 16))


def test_in_openvino_they_answer_alike(tmp_path: Path, exporter: Exporter) -> None:
    network = ladder()
    save_openvino(tmp_path / "openvino", save_onnx(tmp_path / "onnx", network, ABOUT, exporter))
    same(load_runtime(tmp_path / "openvino"), network, counts=(1, 7, 16))
