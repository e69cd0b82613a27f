"""torchvision's ResNets, wide ResNets and ResNeXts: post-activation basic and bottleneck blocks."""

from typing import Any

from torch import Tensor, nn
from torchvision.models import ResNet

from routekit.backbones.adapters import register_adapter
from routekit.backbones.unit import Backbone, Chain, ModelSpec, residual_units


class ActivatedShortcut:
    """The down-sampling shortcut of a post-activation block, with the activation that follows the addition."""

    def __init__(self, block: Any, activation: str) -> None:
        self.block = block
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the output of the block for features [B, C, H, W], if its residual branch adds nothing."""
        y: Tensor = self.block.downsample(x)
        # Activations often work in place, and others may still need x.
        activated: Tensor = getattr(self.block, self.activation)(y.clone() if y is x else y)
        return activated


def _shortcut(block: Any) -> ActivatedShortcut | None:
    return None if block.downsample is None else ActivatedShortcut(block, "relu")


@register_adapter(ResNet)
def adapt_torchvision(model: ResNet, spec: ModelSpec) -> Backbone:
    """See a torchvision ResNet as stem, units and head."""
    stem = Chain(model, "conv1", "bn1", "relu", "maxpool")
    units = residual_units(model, ("layer1", "layer2", "layer3", "layer4"), _shortcut)
    return Backbone(model, spec, stem, units, Chain(model, "avgpool", nn.Flatten(), "fc"), classifier="fc")
