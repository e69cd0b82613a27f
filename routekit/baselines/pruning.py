"""Channel pruning to a budget, by Torch-Pruning: static networks to compare a routed one with, or to start it from.

Inside a residual block a channel can go without any other. Such channels are chosen by L1 (Li et al., "Pruning Filters
for Efficient ConvNets", 2017), FPGM (He et al., 2019), batch norm scales (Liu et al., "Network Slimming", 2017) or
chance. "depgraph" (Fang et al., 2023) also prunes channels between blocks, in all layers that additions couple.
"""

import copy
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut
from routekit.backbones.narrow import chain, channel_step, stepped
from routekit.backbones.unit import Backbone, example_input
from routekit.cost.target import Reach
from routekit.macs import count
from routekit.registry import Registry

# How important each channel is, [C], by the name of a layer. It stands for all layers that lose channels with it.
Scores = dict[str, Tensor]
# How many channels each layer loses, in the order of the scores.
Plan = tuple[int, ...]
# No layer loses more than this share of its channels.
MOST = 0.9
# How finely the share of pruned channels is searched for.
HALVINGS = 10


@dataclass(frozen=True)
class Pruning:
    """How a method chooses channels.

    Attributes:
        score: The class in Torch-Pruning that scores a group of coupled channels.
        options: What it is built with.
        coupled: Whether channels between blocks can go, too, and not only those inside.
        everywhere: Whether scores are compared over the whole network. Otherwise each layer loses the same share.
    """

    score: str
    options: dict[str, Any]
    coupled: bool = False
    everywhere: bool = False


prunings: Registry[Pruning] = Registry("pruning method")
prunings.register("l1")(Pruning("GroupMagnitudeImportance", {"p": 1, "group_reduction": "first", "normalizer": None}))
prunings.register("fpgm")(Pruning("FPGMImportance", {"group_reduction": "first", "normalizer": None}))
prunings.register("bn")(Pruning("BNScaleImportance", {"normalizer": None}, everywhere=True))
prunings.register("depgraph")(Pruning("GroupMagnitudeImportance", {"p": 2}, coupled=True, everywhere=True))
prunings.register("random")(Pruning("RandomImportance", {}))


def prune(view: Backbone, method: str, target: float, seed: int = 0) -> Backbone:
    """Prune a network to a cost.

    The same share of channels goes everywhere, or the least important channels of all layers. One share prunes too
    little and the next one too much: then the first layers are pruned by the greater one. Each layer keeps a multiple
    of `channel_step` channels.

    Args:
        view: The network. It stays as it is.
        method: How channels are chosen: a name in `prunings`.
        target: The cost, MACs. The result comes as near to it as the method can.
        seed: For a method that draws channels at random.

    Returns:
        A copy with fewer channels, or with all of them if the network costs no more than the target.

    Raises:
        InputError: The method is unknown, it cannot prune these blocks, or its smallest network costs more.
    """
    step = _step(view)
    if target >= _cost(view):
        return replace(copy.deepcopy(view), step=step)
    reach_of_pruning(view, method).check(target)
    scores, pruning = _scored(view, prunings[method], seed), prunings[method]

    @cache
    def cost(plan: Plan) -> float:
        return _cost(_pruned(view, scores, plan))

    low, high = 0.0, MOST
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if cost(_plan(scores, share, pruning, step)) > target else (low, share)
    little, much = _plan(scores, low, pruning, step), _plan(scores, high, pruning, step)
    mixed = [much[:layers] + little[layers:] for layers in range(len(much) + 1)]
    enough = bisect_left(mixed, True, lo=1, hi=len(much), key=lambda plan: cost(plan) <= target)
    best = min(mixed[enough - 1 : enough + 1], key=lambda plan: abs(cost(plan) - target))
    return replace(_pruned(view, scores, best), step=step)


def reach_of_pruning(view: Backbone, method: str) -> Reach:
    """Say what a network can cost if it is pruned.

    Args:
        view: The network. It stays as it is.
        method: A name in `prunings`.

    Returns:
        From what to what, in MACs.

    Raises:
        InputError: The method is unknown, or it cannot prune these blocks.
    """
    pruning, least = prunings[method], copy.deepcopy(view)
    for module in least.model.modules():
        if isinstance(module, nn.BatchNorm2d):  # of a new network, these are all alike: no score separates them
            nn.init.uniform_(module.weight)
    scores = _scored(least, pruning, seed=0)
    least = _pruned(least, scores, _plan(scores, MOST, pruning, _step(view)))
    whole = _cost(view)
    return Reach(_cost(least), whole, whole, pruner=f"{method} cannot prune {view.spec.full_name}")


def _step(view: Backbone) -> int:
    return channel_step(unit.block for unit in view.units)


def _cost(view: Backbone) -> float:
    return float(count(view.model, (example_input(view),), view.model).flops)


def _scored(view: Backbone, pruning: Pruning, seed: int) -> Scores:
    # Torch-Pruning imports timm, which takes seconds: most commands need neither.
    from torch_pruning.pruner import importance

    model, graph = _traced(copy.deepcopy(view))
    names = {module: name for name, module in model.named_modules()}
    score = getattr(importance, pruning.score)(**pruning.options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        groups = graph.get_all_groups(ignored_layers=_kept(model, view, pruning), root_module_types=[nn.Conv2d])
        return {names[group[0][0].target.module]: score(group) for group in groups}


def _plan(scores: Scores, share: float, pruning: Pruning, step: int) -> Plan:
    """Prune `share` of the channels: as many of each layer, or those with the lowest scores of all layers."""
    every = torch.cat(list(scores.values())).sort().values
    limit = every[min(int(share * len(every)), len(every) - 1)]
    plan = []
    for score in scores.values():
        width = len(score)
        lost = int((score < limit).sum()) if pruning.everywhere else int(share * width)
        plan.append(width - stepped(width - min(lost, int(MOST * width)), width, step))
    return tuple(plan)


def _pruned(view: Backbone, scores: Scores, plan: Plan) -> Backbone:
    """Copy `view` without the least important channels of each layer, as many as in `plan`."""
    from torch_pruning import prune_conv_out_channels

    view = copy.deepcopy(view)
    view.pruned = True
    model, graph = _traced(view)
    for (name, score), lost in zip(scores.items(), plan, strict=True):
        if lost:
            channels = sorted(score.argsort()[:lost].tolist())
            graph.get_pruning_group(model.get_submodule(name), prune_conv_out_channels, channels).prune()
    return view


def _traced(view: Backbone) -> tuple[nn.Module, Any]:
    """Give the option-A shortcuts of `view` a form that can be pruned, and trace which layers depend on which."""
    from torch_pruning import DependencyGraph
    from torch_pruning.pruner.function import BasePruningFunc

    class ShortcutChannels(BasePruningFunc):  # type: ignore[misc]
        """How option-A shortcuts lose channels. For Torch-Pruning they are layers of their own."""

        def prune_out_channels(self, layer: SourcedShortcut, idxs: list[int]) -> SourcedShortcut:
            layer.lose_outputs(idxs)
            return layer

        def prune_in_channels(self, layer: SourcedShortcut, idxs: list[int]) -> SourcedShortcut:
            layer.lose_inputs(idxs)
            return layer

        def get_out_channels(self, layer: SourcedShortcut) -> int:
            return len(layer.source)

        def get_in_channels(self, layer: SourcedShortcut) -> int:
            return layer.channels_in

    model = view.model.eval().requires_grad_(requires_grad=True)
    for name, module in list(model.named_modules()):
        if type(module) is OptionAShortcut:
            model.set_submodule(name, SourcedShortcut.of(module))
    graph = DependencyGraph().build_dependency(
        model, example_inputs=example_input(view), customized_pruners={SourcedShortcut: ShortcutChannels()}
    )
    return model, graph


def _kept(model: nn.Module, view: Backbone, pruning: Pruning) -> list[nn.Module]:
    """List the layers that keep all outputs: the classifier, and for most methods those between blocks."""
    kept = [model.get_submodule(view.classifier)]
    if not pruning.coupled:
        inner = {f"{unit.name}.{conv}" for unit in view.units for conv, norm in chain(unit.block) if norm is not None}
        kept += [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | SourcedShortcut) and name not in inner
        ]
    return kept
