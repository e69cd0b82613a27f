import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.execution.executor import SparseExecutor
from routekit.execution.fuse import FusedConv, can_fuse, fuse
from routekit.execution.prepare import prepare
from routekit.formats.program import Dense
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from tests.toy import open_to_images

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
# How many convolutions a network has, and operators that fusion leaves for them to do in eager mode.
FAMILIES = [
    "resnet20",
    "timm:resnet26d",
    "timm:resnetv2_50",
    "timm:seresnet50",
    "timm:skresnet18",
    "torchvision:resnet18",
]


@needs_onednn
@pytest.mark.parametrize("name", FAMILIES)
def test_real_families_compute_the_same_fused(name: str) -> None:
    torch.manual_seed(0)
    size = None if name == "resnet20" else (3, 64, 64)
    network = convert(build(spec_of(name, num_classes=10, input_size=size)), [Skip()]).eval()
    open_to_images(network)
    x = torch.randn(3, *network.view.spec.input_size)
    convolutions = sum(type(module) is nn.Conv2d for module in network.backbone.modules())
    fused = fuse(prepare(network))
    assert sum(isinstance(module, FusedConv) for module in fused.backbone.modules()) >= convolutions
    with torch.no_grad():
        reference, dense = network(x, execution=masked), network.backbone(x)
    for count in (1, 3):  # the weights are laid out in different ways for one image and for several
        with torch.inference_mode():
            torch.testing.assert_close(Dense(fused.without_routing())(x[:count]), dense[:count], rtol=1e-4, atol=1e-4)
        answer = SparseExecutor(fused)(x[:count])
        assert torch.equal(answer.routes, reference.routes[:count])
        torch.testing.assert_close(answer.logits, reference.logits[:count], rtol=1e-4, atol=1e-4)


@needs_onednn
def test_a_basic_block_becomes_two_calls() -> None:
    network = prepare(convert(build(spec_of("resnet20", num_classes=10)), [Skip()]).eval())
    fused = fuse(network)
    block = fused.view.units[1].block
    assert [node.op for node in block.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    assert [module.activation for module in block.children()] == ["relu", "relu"]


class OneBlock(nn.Module):
    """A network of one block, whose forward is what a test is about."""

    def __init__(self, forward: Callable[["OneBlock", Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU(inplace=True)
        self.is_leaf = False
        self.compute = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def both_read(block: OneBlock, x: Tensor) -> Tensor:
    y = block.a(x)
    return block.act(y + x) + y


def two_convolutions(block: OneBlock, x: Tensor) -> Tensor:
    return block.act(block.a(x) + block.b(x))


def twice(block: OneBlock, x: Tensor) -> Tensor:
    y = block.a(x)
    return y + y


def broadcast(block: OneBlock, x: Tensor) -> Tensor:
    return block.act(block.a(x) + x.mean((2, 3), keepdim=True))


def number(block: OneBlock, x: Tensor) -> Tensor:
    return torch.relu(block.a(x) + 1.0)


def into_the_other(block: OneBlock, x: Tensor) -> Tensor:
    z = x * 2
    z += block.a(x)
    return block.act(z)


def by_two_names(block: OneBlock, x: Tensor) -> Tensor:
    z = other = x * 2
    z += block.a(x)
    return block.act(other)


def other_activation(block: OneBlock, x: Tensor) -> Tensor:
    return torch.sigmoid(block.b(block.a(x)))


def on_values(block: OneBlock, x: Tensor) -> Tensor:
    return block.act(block.a(x)) if x.sum() > 0 else block.b(x)


def weighted(block: OneBlock, x: Tensor) -> Tensor:
    return torch.add(block.a(x), x, alpha=2)


# What is computed, and how many calls of oneDNN with an addition and with an activation it may become.
BLOCKS = {
    both_read: (0, 0),
    two_convolutions: (1, 1),
    twice: (0, 0),
    broadcast: (0, 0),
    number: (0, 0),
    into_the_other: (1, 1),  # a trace knows no operation in place
    by_two_names: (0, 0),
    other_activation: (0, 0),
    on_values: (0, 0),
    weighted: (0, 0),
}


@needs_onednn
@pytest.mark.parametrize("forward", BLOCKS, ids=lambda forward: forward.__name__)
def test_only_what_is_the_same_is_fused(forward: Callable[[OneBlock, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    block = OneBlock(forward).eval()
    spec = ModelSpec("custom", "one", num_classes=3, input_size=(3, 6, 6))
    view = Backbone(block, spec, torch.relu, [ResidualUnit("block", block, 0)], nn.Flatten())
    fused = fuse(prepare(convert(view, [Skip()]).eval()))
    dense, x = Dense(fused.without_routing()), torch.randn(2, 3, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(dense(x), block(torch.relu(x)).flatten(1))
        torch.testing.assert_close(dense(-x), block(torch.relu(-x)).flatten(1))
    found = [module for module in fused.view.units[0].block.modules() if isinstance(module, FusedConv)]
    graph = getattr(fused.view.units[0].block, "graph", None)
    added = 0 if graph is None else sum(node.op == "call_module" and len(node.args) == 2 for node in graph.nodes)
    assert (added, sum(module.activation == "relu" for module in found)) == BLOCKS[forward]


def test_what_oneDNN_does_not_compute_stays_as_it_is() -> None:  # noqa: N802 - its name
    network = prepare(convert(build(spec_of("resnet20", num_classes=10)), [Skip()]).eval()).double()
    assert not can_fuse(network)
    assert fuse(network) is network


@needs_onednn
def test_fusing_leaves_the_network_alone() -> None:
    network = prepare(convert(build(spec_of("resnet20", num_classes=10)), [Skip()]).eval())
    before = copy.deepcopy(network.state_dict())
    fuse(network)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
