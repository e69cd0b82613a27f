"""Drop a unit: what its default does not need is removed."""

from contextlib import suppress

import torch
from torch import nn

from routekit.backbones.unit import ResidualUnit, Sink, evaluating
from routekit.backbones.walk import calls


@torch.no_grad()
def drop_unit(unit: ResidualUnit) -> None:
    """Replace a unit by its default, a branch or the shortcut. A unit without a junction becomes its shortcut.

    The children of the block that its shortcut calls stay. All others with parameters or buffers become `nn.Identity`.
    """
    unit.sinks = unit.sinks[-1:] if unit.sinks[-1] is not Sink.RUN else (Sink.SKIP,)
    needed: set[nn.Module] = set()
    if unit.sinks[0] is Sink.SKIP and not unit.keeps:
        # One of the convolutions reads what the unit does; the first one may read a part of it (selective kernels).
        for conv in [module for module in unit.block.modules() if isinstance(module, nn.Conv2d)]:
            with suppress(RuntimeError), evaluating(unit.block), calls(unit.block) as needed:
                unit.skip(torch.zeros(1, conv.in_channels, 8, 8).to(conv.weight))
                break
    for name, child in unit.block.named_children():
        if child not in needed and child.state_dict():
            setattr(unit.block, name, nn.Identity())
