"""Narrow blocks: the right channels, the block's own weights, and nothing that changes it unseen."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import BasicBlock
from routekit.backbones.load import build, spec_of
from routekit.backbones.narrow import SharedConv2d, channel_step, narrow, stand_alone, stepped
from routekit.errors import InputError
from routekit.formats.checkpoint import load, save_network
from routekit.junctions.branch import Branch
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip

SIZE = (3, 64, 64)


def block() -> BasicBlock:
    """Four inner channels: their importance, |gamma| times the norm of what reads them, is 6, 1, 4 and 9."""
    torch.manual_seed(0)
    made = BasicBlock(4, 4, 1).eval()
    with torch.no_grad():
        made.conv2.weight.copy_(
            made.conv2.weight / torch.linalg.vector_norm(made.conv2.weight, dim=(0, 2, 3)).view(-1, 1, 1)
        )
        made.conv2.weight.mul_(torch.tensor([2.0, 1.0, 1.0, 3.0]).view(-1, 1, 1))
        made.bn1.weight.copy_(torch.tensor([-3.0, 1.0, 4.0, 3.0]))
        made.bn1.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return made


def features(channels: int = 4, size: int = 6) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_the_channels_that_move_the_output_most_are_kept() -> None:
    full = block()
    small = narrow(full, 0.5)
    first, second = small.conv1, small.conv2
    assert isinstance(first, SharedConv2d)
    assert isinstance(second, SharedConv2d)
    assert first.outputs.tolist() == second.inputs.tolist() == [0, 3]
    assert small.bn1.weight.tolist() == [-3, 3]
    assert small.bn1.running_mean.tolist() == pytest.approx([0.1, 0.4])
    # A narrow block is the full one whose other channels say nothing.
    silenced = copy.deepcopy(full)
    with torch.no_grad():
        silenced.conv2.weight[:, [1, 2]] = 0
        torch.testing.assert_close(small(features()), silenced(features()))


@pytest.mark.parametrize(
    ("count", "width", "step", "nearest"),
    [(25.6, 64, 1, 26), (0.3, 64, 1, 1), (25.6, 64, 16, 32), (23.9, 64, 16, 16), (3, 64, 16, 16), (99, 100, 16, 96),
     (99.9, 100, 1, 100), (9, 10, 16, 10), (100, 100, 16, 100), (64, 64, 16, 64)],
)  # fmt: skip
def test_the_nearest_number_of_channels_in_steps(count: float, width: int, step: int, nearest: int) -> None:
    assert stepped(count, width, step) == nearest


@pytest.mark.parametrize(("name", "step"), [("resnet20", 4), ("torchvision:resnet18", 16), ("timm:resnet50", 16)])
def test_networks_keep_channels_in_sixteens_or_in_fours(name: str, step: int) -> None:
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else SIZE))
    assert channel_step(unit.block for unit in view.units) == step
    network = convert(view, [Skip(), Branch(width=(0.4,))])
    assert network.view.step == step
    widths = {unit.branches[0].bn1.num_features for unit in network.view.units if unit.branches}
    assert widths == ({8, 12, 24} if step == 4 else {32, 48, 96, 208})


@pytest.mark.parametrize("step", [1, 16])
def test_a_saved_network_knows_its_step(tmp_path: Path, step: int) -> None:
    view = build(spec_of("torchvision:resnet18", num_classes=10, input_size=SIZE))
    view.step = step
    network = convert(view, [Skip(), Branch(width=(0.4,))]).eval()
    save_network(tmp_path, network, about={})
    (written,) = json.loads((tmp_path / "network.json").read_text())["networks"]
    assert written["step"] == step
    x = torch.randn(2, *SIZE)
    again = load(tmp_path)
    assert again.view.step == step
    assert torch.equal(again.predict(x), network.predict(x))


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "torchvision:resnet50", "timm:seresnet50"])
def test_all_channels_are_the_block_itself(name: str) -> None:
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else SIZE))
    view.model.eval()
    with torch.no_grad():
        x = view.stem(torch.randn(2, *view.spec.input_size))
        for unit in view.units[:5]:
            assert torch.equal(narrow(unit.block, 1.0)(x), unit.run(x))
            assert narrow(unit.block, 0.3)(x).shape == unit.run(x).shape
            x = unit.run(x)


def test_the_weights_are_the_block_s_and_the_norms_are_not() -> None:
    full = block().train()
    small = narrow(full, 0.5)
    assert {name for name, _ in small.named_parameters()} == {"bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"}
    small(features()).square().sum().backward()
    slopes = full.conv1.weight.grad.abs().sum(dim=(1, 2, 3))
    assert (slopes > 0).tolist() == [True, False, False, True]
    assert full.bn1.weight.grad is None
    before = small.eval()(features())
    with torch.no_grad():
        full.bn2.weight.mul_(2)
        assert torch.equal(small(features()), before)
        full.conv1.weight[0] *= 2
    assert not torch.equal(small(features()), before)


def test_a_copy_of_both_stays_one_network() -> None:
    full = block()
    both = nn.ModuleList([full, narrow(full, 0.5)])
    copied = copy.deepcopy(both)
    with torch.no_grad():
        copied[0].conv1.weight.mul_(2)
        assert not torch.equal(copied[1](features()), both[1](features()))
        assert torch.equal(both[1](features()), narrow(block(), 0.5)(features()))


def test_standing_alone_it_is_the_same_and_learns_nothing_more() -> None:
    full = block()
    small = narrow(full, 0.5)
    with torch.no_grad():
        before = small(features())
        stand_alone(small)
        full.conv1.weight.zero_()
        assert torch.equal(small(features()), before)
    assert [tuple(p.shape[:2]) for name, p in small.named_parameters() if "conv" in name] == [(2, 4), (4, 2)]


@pytest.mark.parametrize("name", ["torchvision:resnext50_32x4d", "timm:resnetblur50"])
def test_a_block_that_cannot_be_narrow_is_refused(name: str) -> None:
    unit = build(spec_of(name, num_classes=10, input_size=SIZE)).units[3]
    with pytest.raises(InputError, match="has no narrow form: known are blocks of conv1, bn1, conv2"):
        narrow(unit.block, 0.5)


def test_other_blocks_are_refused() -> None:
    with pytest.raises(InputError, match="a Sequential has no narrow form"):
        narrow(nn.Sequential(nn.Conv2d(3, 4, 1)), 0.5)
