"""Pruned networks: which channels go, how near the cost comes, and that what is left works everywhere."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import routekit
from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut
from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.baselines.pruning import prune, prunings, reach_of_pruning
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import load, save_network
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.routing.router import RouterConfig
from tests.agreement import executed_as_charged, executors_agree
from tests.toy import open_to_images


def trained(name: str = "resnet20") -> Backbone:
    """A network whose batch norms differ from channel to channel, as those of trained ones do."""
    torch.manual_seed(0)
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else (3, 64, 64)))
    for module in view.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return view


def cost(view: Backbone) -> float:
    return CostTable.measure(convert(view)).dense


@pytest.mark.parametrize("method", sorted(prunings))
def test_the_cost_is_met_and_the_rest_is_the_same(method: str) -> None:
    view = trained()
    before, whole = copy.deepcopy(view.model.state_dict()), cost(view)
    pruned = prune(view, method, 0.4 * whole)
    assert cost(pruned) == pytest.approx(0.4 * whole, rel=0.02)
    between = {unit.block.bn2.num_features for unit in pruned.units}
    assert (between == {16, 32, 64}) == (method != "depgraph")
    assert pruned.model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    # What is pruned is a copy.
    assert all(torch.equal(tensor, before[name]) for name, tensor in view.model.state_dict().items())
    assert not view.pruned
    assert prune(view, method, 2 * whole).model.conv1.out_channels == 16


@pytest.mark.parametrize("method", ["l1", "bn", "depgraph"])
def test_wide_networks_keep_channels_in_sixteens(method: str) -> None:
    view = trained("torchvision:resnet18")
    pruned = prune(view, method, 0.5 * cost(view))
    assert cost(pruned) == pytest.approx(0.5 * cost(view), rel=0.02)
    assert {unit.block.bn1.num_features % 16 for unit in pruned.units} == {0}
    assert {unit.block.bn2.num_features % 16 for unit in pruned.units} == {0}
    assert pruned.step == 16


def test_l1_keeps_the_heaviest_filters_of_each_layer() -> None:
    view = trained()
    pruned = prune(view, "l1", 0.5 * cost(view))
    for unit, kept in zip(view.units, pruned.units, strict=True):
        weight, left = unit.block.conv1.weight, kept.block.conv1.weight
        heaviest = weight.abs().sum(dim=(1, 2, 3)).topk(len(left)).indices.sort().values
        assert 0 < len(left) < len(weight)
        assert torch.equal(left, weight[heaviest])
        assert torch.equal(kept.block.conv2.weight, unit.block.conv2.weight[:, heaviest])
        assert torch.equal(kept.block.bn1.running_var, unit.block.bn1.running_var[heaviest])


def test_fpgm_takes_the_filters_nearest_to_all_others() -> None:
    view = trained()
    pruned = prune(view, "fpgm", 0.5 * cost(view))
    weight, left = view.units[0].block.conv1.weight, pruned.units[0].block.conv1.weight
    far = torch.cdist(weight.flatten(1).square(), weight.flatten(1).square()).sum(dim=1)
    assert torch.equal(left, weight[far.topk(len(left)).indices.sort().values])


def test_batch_norm_scales_are_compared_over_the_whole_network() -> None:
    view = trained()
    with torch.no_grad():  # the last unit's channels are all unimportant
        view.units[-1].block.bn1.weight.mul_(0.05)
    pruned = prune(view, "bn", 0.6 * cost(view))
    kept = [
        unit.block.bn1.num_features / own.block.bn1.num_features
        for unit, own in zip(pruned.units, view.units, strict=True)
    ]
    assert kept[-1] == 8 / 64  # no layer loses more than nine tenths, and channels stay in fours
    assert min(kept[:-1]) > 0.3


def test_chance_goes_by_the_seed() -> None:
    view = trained()
    drawn = [prune(view, "random", 0.5 * cost(view), seed).model.layer1[0].conv1.weight for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_option_a_shortcuts_lose_channels_by_hand() -> None:
    plain = OptionAShortcut(4, 8)
    x = torch.randn(2, 4, 6, 6)
    sourced = SourcedShortcut.of(plain)
    assert torch.equal(sourced(x), plain(x))
    sourced.lose_inputs([1])
    want = plain(torch.cat([x[:, :1], torch.zeros_like(x[:, :1]), x[:, 2:]], dim=1))
    assert torch.equal(sourced(x[:, [0, 2, 3]]), want)
    sourced.lose_outputs([0, 4])
    assert torch.equal(sourced(x[:, [0, 2, 3]]), want[:, [1, 2, 3, 5, 6, 7]])


@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18"])
def test_pruned_and_routed_it_is_saved_and_executed(tmp_path: Path, name: str) -> None:
    view = trained(name)
    pruned = prune(view, "depgraph", 0.6 * cost(view))
    network = convert(pruned, [Skip()], routers=RouterConfig(hidden=8)).eval()
    open_to_images(network)
    x = torch.randn(6, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    executors_agree(network, x, prepared=True)
    if name == "resnet20":
        executed_as_charged(network, x)
    save_network(tmp_path, network, about={})
    again = load(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(x).logits, network(x).logits)
    assert CostTable.measure(again).dense == CostTable.measure(network).dense < 0.65 * cost(view)
    answer = routekit.optimize(again)(x)
    torch.testing.assert_close(answer.logits, network(x).logits, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_pruned() -> None:
    view = trained()
    with pytest.raises(InputError, match=r"l1 cannot prune resnet20 to .*: at least .* is left"):
        reach_of_pruning(view, "l1").check(0.01 * cost(view))
    with pytest.raises(InputError, match="did you mean depgraph"):
        reach_of_pruning(view, "degraph")
    with pytest.raises(InputError, match="has no narrow form"):
        reach_of_pruning(trained("torchvision:resnext50_32x4d"), "l1")
