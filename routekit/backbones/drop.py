"""Leave a unit out for good: what its default does not need is gone."""

import torch
from torch import nn

from routekit.backbones.unit import ResidualUnit, Sink, evaluating


@torch.no_grad()
def drop_unit(unit: ResidualUnit) -> None:
    """Make `unit` its default, its shortcut or a branch, for good; it is no junction any more.

    The default of a unit about which nothing is decided is here its shortcut.

    The children of the block that its shortcut calls stay; all others with parameters or buffers become
    `nn.Identity`.
    """
    unit.sinks = unit.sinks[-1:] if unit.sinks[-1] is not Sink.RUN else (Sink.SKIP,)
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
