"""timm's residual networks: the ResNet class with its many blocks, and ResNetV2 with and without pre-activation."""

from typing import Any

from timm.models.resnet import ResNet
from timm.models.resnetv2 import PreActBasic, PreActBottleneck, ResNetV2
from torch import Tensor, nn

from routekit.backbones.adapters import register_adapter
from routekit.backbones.torchvision_resnet import ActivatedShortcut
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.errors import InputError


class TimmView:
    """Stem and head of a timm ResNet, as its own forward computes them."""

    def __init__(self, model: ResNet) -> None:
        self.model = model

    def stem(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features, after the pooling of the stem."""
        model = self.model
        features: Tensor = model.maxpool(model.act1(model.bn1(model.conv1(x))))
        return features

    def head(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> logits [B, classes]."""
        logits: Tensor = self.model.forward_head(x)
        return logits


class TimmV2View:
    """Stem and head of a timm ResNetV2; the norm after the last stage belongs to the head."""

    def __init__(self, model: ResNetV2) -> None:
        self.model = model

    def stem(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features."""
        features: Tensor = self.model.stem(x)
        return features

    def head(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> logits [B, classes]."""
        logits: Tensor = self.model.forward_head(self.model.norm(x))
        return logits


class PreActivatedShortcut:
    """The down-sampling shortcut of a pre-activation block: it reads the normalised, activated features."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __call__(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> what leaves the block when its residual branch adds nothing."""
        y: Tensor = self.block.downsample(self.block.norm1(x))
        return y


def _shortcut(block: nn.Module, name: str) -> ActivatedShortcut | PreActivatedShortcut | None:
    """Find what a skipped block computes; raises InputError for a block without a known last activation."""
    if getattr(block, "downsample", None) is None:
        return None
    if isinstance(block, PreActBasic | PreActBottleneck):
        return PreActivatedShortcut(block)
    # The activation after the addition has the highest number; SK and Res2Net blocks have only one.
    for activation in ("act3", "act", "act2", "relu"):
        if isinstance(getattr(block, activation, None), nn.Module):
            return ActivatedShortcut(block, activation)
    raise InputError(f"{name}: a {type(block).__name__} has no activation that routekit knows to follow its shortcut")


def _unit(name: str, block: nn.Module, stage: int) -> ResidualUnit:
    return ResidualUnit(name, block, stage, _shortcut(block, name))


@register_adapter(ResNet)
def adapt_timm(model: ResNet, spec: ModelSpec) -> Backbone:
    """See a timm ResNet (ResNeXt, SE, ECA, SK, Res2Net, ResNeSt, anti-aliased, ...) as stem, units and head."""
    layers: tuple[Any, ...] = (model.layer1, model.layer2, model.layer3, model.layer4)
    units = [
        _unit(f"layer{stage + 1}.{index}", block, stage)
        for stage, layer in enumerate(layers)
        for index, block in enumerate(layer)
    ]
    view = TimmView(model)
    return Backbone(model, spec, view.stem, units, view.head, classifier="fc")


@register_adapter(ResNetV2)
def adapt_timm_v2(model: ResNetV2, spec: ModelSpec) -> Backbone:
    """See a timm ResNetV2 as stem, units and head."""
    stages: Any = model.stages
    units = [
        _unit(f"stages.{stage}.blocks.{index}", block, stage)
        for stage, layer in enumerate(stages)
        for index, block in enumerate(layer.blocks)
    ]
    view = TimmV2View(model)
    return Backbone(model, spec, view.stem, units, view.head, classifier="head.fc")
