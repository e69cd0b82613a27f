"""What may be folded: a batch norm into the convolution whose output nobody else reads."""

import copy

import torch
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone, ResidualUnit
from routekit.execution.fold import fold
from routekit.execution.prepare import prepare
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig
from tests.toy import TOY_SPEC, toy_noise, toy_view


class PreActivated(nn.Module):
    """A block that normalises what it reads; `between` stands between its first convolution and a norm."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = norm(), conv(), norm(), conv()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.bn1(x)))
        return x + self.conv2(self.bn2(self.between(y)))


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1, bias=False)


def norm() -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(4)
    for tensor, low in ((made.weight, 0.5), (made.bias, -1.0), (made.running_mean, -1.0), (made.running_var, 0.5)):
        nn.init.uniform_(tensor, low, 1.5)
    return made


class Whole(nn.Module):
    """A stem that is a convolution alone, whose output the first block reads twice."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = PreActivated(between)
        self.fc = nn.Linear(4, 3)

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def network(between: nn.Module) -> RoutedNetwork:
    torch.manual_seed(0)
    model = Whole(between).eval()
    units = [ResidualUnit("block", model.block, stage=0)]
    view = Backbone(model, TOY_SPEC, model.stem, units, model.head)
    return convert(view, [Skip()], routers=RouterConfig(hidden=4)).eval()


def folded_pairs(between: nn.Module) -> set[tuple[str, str]]:
    original = network(between)
    copied = copy.deepcopy(original)
    pairs = fold(copied)
    x = toy_noise(5)
    with torch.no_grad():
        want, got = original(x), copied(x)
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=1e-5)
    assert torch.equal(got.routes, want.routes)
    return {(pair.conv, pair.norm) for pair in pairs}


def test_a_norm_whose_input_others_read_stays() -> None:
    # The stem's output is also the shortcut, and what a router sees.
    assert folded_pairs(nn.Identity()) == {("_models.0.block.conv1", "_models.0.block.bn2")}


def test_a_norm_after_an_activation_in_place_stays() -> None:
    assert folded_pairs(nn.ReLU(inplace=True)) == set()


def test_every_norm_of_a_cifar_network_is_folded() -> None:
    pairs = fold(convert(build(spec_of("resnet20")), [Skip()]).eval())
    assert len(pairs) == 19


def test_weights_that_are_standardised_at_each_call_are_settled() -> None:
    view = toy_view()
    (name, conv), *_ = [
        (name, each) for name, each in view.model.named_modules() if name and isinstance(each, nn.Conv2d)
    ]
    size = (conv.in_channels, conv.out_channels, conv.kernel_size)
    standard = StdConv2d(*size, stride=conv.stride, padding=conv.padding, bias=True)
    nn.init.normal_(standard.weight, mean=0.3)
    nn.init.normal_(standard.bias)
    view.model.set_submodule(name, standard)
    network, x = convert(view, [Skip()]).eval(), toy_noise(3)
    ready = prepare(network)
    assert not any(isinstance(each, StdConv2d) for each in ready.modules())
    assert any(isinstance(each, StdConv2d) for each in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(ready(x).logits, network(x).logits, rtol=1e-4, atol=1e-4)
