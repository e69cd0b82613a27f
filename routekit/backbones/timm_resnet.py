"""timm's residual networks: the ResNet class with its many blocks, and ResNetV2 with and without pre-activation."""

from typing import Any

from timm.models.resnet import ResNet
from timm.models.resnetv2 import PreActBasic, PreActBottleneck, ResNetV2
from torch import nn

from routekit.backbones.adapters import register_adapter
from routekit.backbones.torchvision_resnet import ActivatedShortcut
from routekit.backbones.unit import Backbone, Chain, ModelSpec, residual_units
from routekit.errors import InputError


def _shortcut(block: Any) -> ActivatedShortcut | Chain | None:
    """Find what a skipped block computes. Raises InputError for a block whose last activation is not found."""
    if getattr(block, "downsample", None) is None:
        return None
    if isinstance(block, PreActBasic | PreActBottleneck):
        return Chain(block, "norm1", "downsample")
    # The activation after the addition has the highest number; SK and Res2Net blocks have only one.
    for activation in ("act3", "act", "act2", "relu"):
        if isinstance(getattr(block, activation, None), nn.Module):
            return ActivatedShortcut(block, activation)
    raise InputError(f"a {type(block).__name__} has no activation that routekit knows to follow its shortcut")


@register_adapter(ResNet)
def adapt_timm(model: ResNet, spec: ModelSpec) -> Backbone:
    """See a timm ResNet (ResNeXt, SE, ECA, SK, Res2Net, ResNeSt, anti-aliased, ...) as stem, units and head."""
    stem = Chain(model, "conv1", "bn1", "act1", "maxpool")
    units = residual_units(model, ("layer1", "layer2", "layer3", "layer4"), _shortcut)
    return Backbone(model, spec, stem, units, Chain(model, "forward_head"), classifier="fc")


@register_adapter(ResNetV2)
def adapt_timm_v2(model: ResNetV2, spec: ModelSpec) -> Backbone:
    """See a timm ResNetV2 as stem, units and head. The norm after the last stage belongs to the head."""
    units = residual_units(model, [f"stages.{stage}.blocks" for stage in range(len(model.stages))], _shortcut)
    return Backbone(
        model, spec, Chain(model, "stem"), units, Chain(model, "norm", "forward_head"), classifier="head.fc"
    )
