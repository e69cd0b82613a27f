"""Channel pruning to a budget, by Torch-Pruning: static networks to compare a routed one with, or to start it from.

Inside a residual block a channel can go without any other. Such channels are chosen by L1 (Li et al., "Pruning Filters
for Efficient ConvNets", 2017), FPGM (He et al., 2019), batch norm scales (Liu et al., "Network Slimming", 2017) or
chance. "depgraph" (Fang et al., 2023) also prunes channels between blocks, in all layers that additions couple.
"""

import copy
import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import SourcedShortcut
from routekit.backbones.narrow import chain, channel_step, stepped
from routekit.backbones.unit import Backbone, seen_input
from routekit.baselines.coupling import families, traced
from routekit.cost.target import Reach
from routekit.errors import InputError, RoutekitError, first_line
from routekit.macs import count
from routekit.registry import Registry

# How important each channel is, [P, C / P], by the name of a layer. It stands for all that lose channels with it.
# Of its P parts, each loses the same channels: P is 1 where no convolution is grouped.
Scores = dict[str, Tensor]
# How many channels each part of each layer loses, in the order of the scores.
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
    little and the next one too much: then the first layers are pruned by the greater one, and the widest layer makes up
    for the rest. Each layer keeps a multiple of `channel_step` channels.

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

    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if cost(_plan(scores, share, pruning, step)) > target else (low, share)
    little, much = _plan(scores, low, pruning, step), _plan(scores, high, pruning, step)
    mixed = [much[:layers] + little[layers:] for layers in range(len(much) + 1)]
    enough = bisect_left(mixed, True, lo=1, hi=len(much), key=lambda plan: cost(plan) <= target)
    finer = _thinned(scores, mixed[enough - 1], step)
    most = bisect_left(finer, True, lo=1, hi=len(finer) - 1, key=lambda plan: cost(plan) <= target)
    near = [*finer[most - 1 : most + 1], mixed[enough]]
    best = min(near, key=lambda plan: abs(cost(plan) - target))
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
    pruning, whole = prunings[method], _cost(view)
    try:
        scores = _scored(view, pruning, seed=0)
        least = _cost(_pruned(view, scores, _plan(scores, 1.0, pruning, _step(view))))
    except RoutekitError:
        raise
    except Exception as error:  # whatever Torch-Pruning raises, or a network whose parts do not fit together any more
        raise InputError(
            f"{method} cannot prune {view.spec.full_name}, whose blocks it does not know ({first_line(error)}): choose "
            "another method"
        ) from error
    return Reach(least, whole, whole, pruner=f"{method} cannot prune {view.spec.full_name}")


def _step(view: Backbone) -> int:
    return channel_step(unit.block for unit in view.units)


def _cost(view: Backbone) -> float:
    return float(count(view.model, (seen_input(view),), view.model).flops)


def _scored(view: Backbone, pruning: Pruning, seed: int) -> Scores:
    # Torch-Pruning imports timm, which takes seconds: most commands need neither.
    from torch_pruning.pruner import importance

    model, graph = traced(copy.deepcopy(view))
    names = {module: name for name, module in model.named_modules()}
    score = getattr(importance, pruning.score)(**pruning.options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores: Scores = {}
        for group, parts in families(graph, _kept(model, view, pruning)):
            layer, found = group[0][0].target.module, score(group)
            if found is None or not len(found):  # no layer that Torch-Pruning knows: by the filters of its convolutions
                convs = [part for part in layer.modules() if isinstance(part, nn.Conv2d)]
                found = torch.stack([conv.weight.detach().square().sum(dim=(1, 2, 3)) for conv in convs]).sum(dim=0)
            scores[names[layer]] = found.view(parts, -1)
        return scores


def _plan(scores: Scores, share: float, pruning: Pruning, step: int) -> Plan:
    """Prune `share` of the channels: as many of each layer, or those with the lowest scores of all layers."""
    every = torch.cat([score.mean(dim=0) for score in scores.values()]).sort().values
    limit = every[int(share * len(every))] if share < 1 else torch.inf
    plan = []
    for score in scores.values():
        parts, width = score.shape
        lost = int((score.mean(dim=0) < limit).sum()) if pruning.everywhere else int(share * width)
        # All parts together keep a multiple of the step.
        plan.append(width - stepped(width - min(lost, int(MOST * width)), width, step // math.gcd(step, parts)))
    return tuple(plan)


def _thinned(scores: Scores, plan: Plan, step: int) -> list[Plan]:
    """The plan, and such that prune more and more of the widest layer, in the smallest steps."""
    layer, (parts, width) = max(enumerate(score.shape for score in scores.values()), key=lambda each: each[1][1])
    quantum = step // math.gcd(step, parts)
    more = [lost for lost in range(plan[layer] + 1, int(MOST * width) + 1) if (width - lost) % quantum == 0]
    return [plan, *((*plan[:layer], lost, *plan[layer + 1 :]) for lost in more)]


def _pruned(view: Backbone, scores: Scores, plan: Plan) -> Backbone:
    """Copy `view` without the least important channels of each layer, as many as in `plan`."""
    view = copy.deepcopy(view)
    view.pruned = True
    model, graph = traced(view)
    for (name, score), lost in zip(scores.items(), plan, strict=True):
        if lost:
            parts, width = score.shape
            least = sorted(score.mean(dim=0).argsort()[:lost].tolist())
            channels = [part * width + channel for part in range(parts) for channel in least]
            layer = model.get_submodule(name)
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels).prune()
    return view


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
