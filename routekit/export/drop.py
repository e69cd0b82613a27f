"""Take from a network what its images do not decide: units that none runs, routers of units that all run."""

from collections.abc import Sequence

import torch
from torch import nn

from routekit.backbones.unit import ResidualUnit, Sink, evaluating
from routekit.network.network import RoutedNetwork


def reduce(network: RoutedNetwork, dropped: Sequence[str], settled: Sequence[str]) -> tuple[list[str], list[str]]:
    """Drop some units of `network` for good, and let others run for all images; returns which were.

    Routers that need each other are left, and so is the last junction: a routed network has one at least, however it
    decides. It depends on the architecture and the names alone, so a loader can repeat it before it reads the tensors.
    """
    gone: dict[bool, list[str]] = {False: [], True: []}
    for unit in network.junctions:
        settles = unit.name in settled
        if not (settles or unit.name in dropped) or len(network.junctions) == 1 or not network.remove(unit):
            continue
        gone[settles].append(unit.name)
        if settles:
            unit.sinks = (Sink.RUN,)
        else:
            drop_unit(unit)
    network.register_branches()
    return gone[False], gone[True]


@torch.no_grad()
def drop_unit(unit: ResidualUnit) -> None:
    """Make `unit` its default, its shortcut or a branch, for good; it is no junction any more.

    The children of the block that its shortcut calls stay; all others with parameters or buffers become
    `nn.Identity`.
    """
    unit.sinks = unit.sinks[-1:]
    used = _children_called(unit) if unit.sinks[0] is Sink.SKIP and not unit.keeps else set()
    for name, child in unit.block.named_children():
        if name not in used and child.state_dict():
            setattr(unit.block, name, nn.Identity())


def _children_called(unit: ResidualUnit) -> set[str]:
    """Which children of the block its shortcut calls, found by calling it on a blank image."""
    called: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda module, inputs, name=name: called.add(name))
        for name, child in unit.block.named_children()
    ]
    first = next(module for module in unit.block.modules() if isinstance(module, nn.Conv2d))
    x = torch.zeros(1, first.in_channels, 8, 8, device=first.weight.device, dtype=first.weight.dtype)
    try:
        with evaluating(unit.block):
            unit.skip(x)
    finally:
        for hook in hooks:
            hook.remove()
    return called
