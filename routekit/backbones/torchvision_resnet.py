"""torchvision's ResNets, wide ResNets and ResNeXts: post-activation basic and bottleneck blocks."""

from typing import Any

from torch import Tensor
from torchvision.models import ResNet

from routekit.backbones.adapters import register_adapter
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit


class ActivatedShortcut:
    """The down-sampling shortcut of a post-activation block, with the activation that follows the addition."""

    def __init__(self, block: Any, activation: str) -> None:
        self.block = block
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> what leaves the block when its residual branch adds nothing."""
        y: Tensor = self.block.downsample(x)
        # Activations often work in place, and others may still need x.
        activated: Tensor = getattr(self.block, self.activation)(y.clone() if y is x else y)
        return activated


class TorchvisionView:
    """Stem and head of `model`, as its own forward computes them."""

    def __init__(self, model: ResNet) -> None:
        self.model = model

    def stem(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features [B, 64, H/4, W/4]."""
        features: Tensor = self.model.maxpool(self.model.relu(self.model.bn1(self.model.conv1(x))))
        return features

    def head(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> logits [B, classes]."""
        logits: Tensor = self.model.fc(self.model.avgpool(x).flatten(1))
        return logits


@register_adapter(ResNet)
def adapt_torchvision(model: ResNet, spec: ModelSpec) -> Backbone:
    """See a torchvision ResNet as stem, units and head."""
    units = [
        ResidualUnit(
            name=f"layer{stage + 1}.{index}",
            block=block,
            stage=stage,
            shortcut=None if block.downsample is None else ActivatedShortcut(block, "relu"),
        )
        for stage, layer in enumerate((model.layer1, model.layer2, model.layer3, model.layer4))
        for index, block in enumerate(layer)
    ]
    view = TorchvisionView(model)
    return Backbone(model, spec, view.stem, units, view.head, classifier="fc")
