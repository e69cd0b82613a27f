"""CIFAR shortcuts as convolutions: the same values, and a layout that lasts through the network."""

from pathlib import Path

import onnx
import torch

from routekit.backbones.cifar_resnet import CifarResNet, OptionAShortcut, SourcedShortcut, adapt_cifar
from routekit.backbones.resize import resize
from routekit.backbones.unit import ModelSpec
from routekit.baselines.pruning import prune
from routekit.cost.table import CostTable
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.shortcut import convolve_shortcuts
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig


def small() -> RoutedNetwork:
    """A block a stage: the second and the third halve the features."""
    torch.manual_seed(0)
    spec = ModelSpec(source="cifar", name="resnet8", num_classes=10, input_size=(3, 32, 32))
    return convert(adapt_cifar(CifarResNet(8), spec), [Skip()], routers=RouterConfig(hidden=8)).eval()


@torch.no_grad()
def test_a_shortcut_as_a_convolution_gives_the_same_bits() -> None:
    network, images = small(), torch.randn(3, 3, 32, 32)
    want = network.backbone(images)
    convolve_shortcuts(network)
    assert not any(isinstance(module, OptionAShortcut) for module in network.modules())
    assert torch.equal(network.backbone(images), want)


def test_a_pruned_shortcut_keeps_its_sources(tmp_path: Path) -> None:
    """Pruning between blocks leaves outputs with and without an input in any order."""
    images = torch.randn(3, 3, 32, 32)
    view = small().view
    pruned = prune(view, "depgraph", 0.4 * CostTable.measure(convert(view)).dense, seed=0)
    network = convert(pruned, [Skip()], routers=RouterConfig(hidden=8)).eval()
    want = network.predict(images)
    save_network(tmp_path, network, about={})
    for each in (network, load(tmp_path)):
        assert torch.equal(each.predict(images), want)
        convolve_shortcuts(each)
        assert not any(isinstance(module, OptionAShortcut) for module in each.modules())
        assert torch.equal(each.predict(images), want)


@torch.no_grad()
def test_a_shortcut_may_have_lost_all_its_zeros_and_not_read_all_inputs() -> None:
    network, images = small(), torch.randn(2, 16, 8, 8)
    block = network.backbone.layer2[0]
    sourced = SourcedShortcut.of(block.shortcut)
    sourced.lose_outputs([*range(8), 22, 23, *range(24, 32)])  # the last two inputs with them
    assert sourced.source.tolist() == list(range(14))
    shapes = {"layer2.0.conv1.weight": block.conv1.weight.shape, "layer2.0.shortcut.source": sourced.source.shape}
    resize(network.backbone, shapes)
    assert block.shortcut.channels_in == 16
    block.shortcut.source = sourced.source  # as a state dict would
    want = block.shortcut(images)
    convolve_shortcuts(network)
    assert torch.equal(block.shortcut(images), want)


@torch.no_grad()
def test_a_dropped_unit_keeps_its_shortcut() -> None:
    network, images = small(), torch.randn(3, 3, 32, 32)
    dropped = compact(network, torch.tensor([[True, False, True], [False] * 3])).network
    want = dropped(images).logits
    convolve_shortcuts(dropped)
    assert torch.equal(dropped(images).logits, want)


def test_the_features_keep_their_layout_from_the_stem_to_the_head(tmp_path: Path) -> None:
    (file,) = save_onnx(tmp_path, small(), {}, forms=("single",), native=True)
    graph = onnx.load(file).graph
    branches = [attribute.g.node for node in graph.node if node.op_type == "If" for attribute in node.attribute]
    assert len(branches) == 6
    nodes = [*graph.node, *(node for branch in branches for node in branch)]
    assert [node.op_type for node in nodes if node.op_type.startswith("Reorder")] == ["ReorderOutput"]  # the head's
    # The additions of all blocks are inside of their convolutions.
    assert not any(node.op_type in ("Add", "Slice", "Pad") for node in nodes)
