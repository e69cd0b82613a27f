"""Drop a unit that no image runs: what its shortcut does not use is removed from the model."""

import torch
from torch import nn

from routekit.backbones.unit import ResidualUnit


@torch.no_grad()
def drop_unit(unit: ResidualUnit) -> None:
    """Make `unit` its shortcut for good; it is no junction any more.

    The children of the block that its shortcut calls stay; all others with parameters or buffers become
    `nn.Identity`. It depends on the architecture alone, so a loader can repeat it before it reads the tensors.
    """
    used: set[str] = set()
    if unit.shortcut is not None:
        used = _children_called(unit)
    for name, child in unit.block.named_children():
        if name not in used and child.state_dict():
            setattr(unit.block, name, nn.Identity())
    unit.skippable = False
    unit.dropped = True


def _children_called(unit: ResidualUnit) -> set[str]:
    """Which children of the block its shortcut calls, found by calling it on a blank image."""
    called: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda module, inputs, name=name: called.add(name))
        for name, child in unit.block.named_children()
    ]
    first = next(module for module in unit.block.modules() if isinstance(module, nn.Conv2d))
    x = torch.zeros(1, first.in_channels, 8, 8, device=first.weight.device, dtype=first.weight.dtype)
    was_training = unit.block.training
    unit.block.eval()
    try:
        unit.skip(x)
    finally:
        for hook in hooks:
            hook.remove()
        unit.block.train(was_training)
    return called
