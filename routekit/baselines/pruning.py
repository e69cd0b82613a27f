"""Channel pruning to a budget, by Torch-Pruning: the static networks that a routed one is compared with, or begins as.

Inside of residual blocks a channel can go without any other: that is what L1 (Li et al., "Pruning Filters for Efficient
ConvNets", 2017), FPGM (He et al., 2019), batch norm scales (Liu et al., "Network Slimming", 2017) and chance take.
"depgraph" (Fang et al., 2023) also takes channels between blocks, in all layers that are coupled by the additions.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut
from routekit.backbones.narrow import chain, channel_step, stepped
from routekit.backbones.unit import Backbone, example_input
from routekit.cost.target import Reach
from routekit.macs import count
from routekit.registry import Registry

# Which channels of which layers go: the name of a layer -> indices of its outputs.
Plan = dict[str, list[int]]
# No layer loses more than this share of its channels.
MOST = 0.9
# How finely the share of pruned channels is searched for.
HALVINGS = 10


@dataclass(frozen=True)
class Pruning:
    """A way to choose channels.

    importance: builds what Torch-Pruning scores a group of coupled channels by
    coupled:    whether channels between blocks may go too, and not only those inside
    everywhere: whether scores are compared over the whole network; else each layer loses the same share
    """

    importance: Callable[[], Any]
    coupled: bool = False
    everywhere: bool = False


prunings: Registry[Pruning] = Registry("pruning method")


def _scores(name: str, **options: Any) -> Callable[[], Any]:
    """Build one of Torch-Pruning's scores, when it is needed: most commands need none."""

    def build() -> Any:
        from torch_pruning.pruner import importance

        return getattr(importance, name)(**options)

    return build


prunings.register("l1")(Pruning(_scores("GroupMagnitudeImportance", p=1, group_reduction="first", normalizer=None)))
prunings.register("fpgm")(Pruning(_scores("FPGMImportance", group_reduction="first", normalizer=None)))
prunings.register("bn")(Pruning(_scores("BNScaleImportance", normalizer=None), everywhere=True))
prunings.register("depgraph")(Pruning(_scores("GroupMagnitudeImportance", p=2), coupled=True, everywhere=True))
prunings.register("random")(Pruning(_scores("RandomImportance")))


def prune(view: Backbone, method: str, target: float, seed: int = 0, step: int | None = None) -> Backbone:
    """A copy of `view` with fewer channels, whose cost is as near to `target` MACs as the method comes.

    The same share of channels goes everywhere, or the least important ones of all layers; between two shares that are
    too little and too much, the first layers are pruned by the greater one. What stays of a layer is a multiple of
    `step` channels; None for what suits the network's blocks (`channel_step`).
    Raises InputError for an unknown method, blocks whose channels it does not know, and a
    target under what is left when nearly all channels are gone.
    """
    step = channel_step(unit.block for unit in view.units) if step is None else step
    if target >= _cost(view):
        return replace(copy.deepcopy(view), step=step)
    check_prunable(view, method, target, step)
    way = prunings[method]
    scores = _scored(view, way, seed)
    low, high = 0.0, MOST
    little, much = _plan(scores, low, way, step), _plan(scores, high, way, step)
    for _ in range(HALVINGS):
        share = (low + high) / 2
        plan = _plan(scores, share, way, step)
        # Layers lose whole channels: neighbouring shares are often one plan, whose cost is known.
        if plan == little or (plan != much and _cost(_pruned(view, plan)) > target):
            low, little = share, plan
        else:
            high, much = share, plan
    mixed = [_mixed(little, much, count) for count in range(len(much) + 1)]
    few, many = 0, len(much)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if _cost(_pruned(view, mixed[middle])) > target else (few, middle)
    found = [_pruned(view, mixed[count]) for count in (few, many)]
    return replace(min(found, key=lambda pruned: abs(_cost(pruned) - target)), step=step)


def check_prunable(view: Backbone, method: str, target: float, step: int | None = None) -> None:
    """Raise InputError as `prune` would."""
    reach_of_pruning(view, method, step).check(target)


def reach_of_pruning(view: Backbone, method: str, step: int | None = None) -> Reach:
    """What a method can prune `view` to. Raises InputError for blocks that cannot be pruned."""
    whole = _cost(view)
    cannot = f"{method} cannot prune {view.spec.full_name}"
    return Reach(_least_left(view, method, step), whole, whole, pruner=cannot)


def _least_left(view: Backbone, method: str, step: int | None = None) -> float:
    """What is left when nearly all channels are gone, MACs."""
    step = channel_step(unit.block for unit in view.units) if step is None else step
    way = prunings[method]
    view = copy.deepcopy(view)
    for module in view.model.modules():
        if isinstance(module, nn.BatchNorm2d):  # of a new network, these are all alike: no score tells them apart
            nn.init.uniform_(module.weight)
    return _cost(_pruned(view, _plan(_scored(view, way, seed=0), MOST, way, step)))


def _mixed(little: Plan, much: Plan, count: int) -> Plan:
    """The first `count` layers as in `much`, the others as in `little`."""
    first = list(much)[:count]
    return {name: much[name] for name in first} | {name: idxs for name, idxs in little.items() if name not in first}


def _cost(view: Backbone) -> float:
    return float(count(view.model, (example_input(view),), view.model).flops)


def _scored(view: Backbone, way: Pruning, seed: int) -> dict[str, Tensor]:
    """How important each channel is, [C] for each layer that stands for a group of coupled ones."""
    model, graph = _traced(copy.deepcopy(view))
    names = {module: name for name, module in model.named_modules()}
    importance = way.importance()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        groups = graph.get_all_groups(ignored_layers=_kept(model, view, way), root_module_types=[nn.Conv2d])
        return {names[group[0][0].target.module]: importance(group) for group in groups}


def _plan(scores: dict[str, Tensor], share: float, way: Pruning, step: int) -> Plan:
    """Which channels go when `share` of them does: of each layer as many, or wherever scores are lowest.

    Of each layer, a multiple of `step` channels stays.
    """
    every = torch.cat(list(scores.values())).sort().values
    limit = every[min(int(share * len(every)), len(every) - 1)]
    plan: Plan = {}
    for name, score in scores.items():
        count = int((score < limit).sum()) if way.everywhere else int(share * len(score))
        kept = stepped(len(score) - min(count, int(MOST * len(score))), len(score), step)
        plan[name] = sorted(score.argsort()[: len(score) - kept].tolist())
    return plan


def _pruned(view: Backbone, plan: Plan) -> Backbone:
    """A copy of `view` without the channels of `plan`."""
    from torch_pruning import prune_conv_out_channels

    view = copy.deepcopy(view)
    view.pruned = True
    model, graph = _traced(view)
    for name, indices in plan.items():
        if indices:
            graph.get_pruning_group(model.get_submodule(name), prune_conv_out_channels, indices).prune()
    return view


def _traced(view: Backbone) -> tuple[nn.Module, Any]:
    """The model of `view`, whose option-A shortcuts change their form, and the graph of what depends on what."""
    from torch_pruning import DependencyGraph
    from torch_pruning.pruner.function import BasePruningFunc

    class ShortcutChannels(BasePruningFunc):  # type: ignore[misc]
        """How option-A shortcuts lose channels, which to Torch-Pruning are layers of their own."""

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

    for module in list(view.model.modules()):
        for name, child in module.named_children():
            if type(child) is OptionAShortcut:
                setattr(module, name, SourcedShortcut.of(child))
    model = view.model.eval().requires_grad_(requires_grad=True)
    graph = DependencyGraph().build_dependency(
        model, example_inputs=example_input(view), customized_pruners={SourcedShortcut: ShortcutChannels()}
    )
    return model, graph


def _kept(model: nn.Module, view: Backbone, way: Pruning) -> list[nn.Module]:
    """The layers all of whose outputs are needed: the classifier's, and by most methods those between blocks."""
    kept = [model.get_submodule(view.classifier)]
    if not way.coupled:
        inner = {f"{unit.name}.{conv}" for unit in view.units for conv, norm in chain(unit.block) if norm is not None}
        kept += [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | SourcedShortcut) and name not in inner
        ]
    return kept
