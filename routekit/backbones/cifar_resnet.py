"""The CIFAR ResNets of He et al. (2015, section 4.2), with parameter-free shortcuts (option A).

Depth 6n + 2: three stages of n basic blocks with 16, 32 and 64 channels. Parameter names are those of the published
checkpoints (github akamaster/pytorch_resnet_cifar10).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.backbones.adapters import register_adapter
from routekit.backbones.unit import Backbone, ModelSpec, residual_units

DEPTHS = (20, 32, 44, 56, 74, 110, 1202)


class OptionAShortcut(nn.Module):
    """Every second pixel, and zeros for the new channels: half of them before, half after."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.channels_in, self.new_channels = channels_in, channels_out - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H/2, W/2]."""
        before = self.new_channels // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.new_channels - before))


class SourcedShortcut(OptionAShortcut):
    """An option-A shortcut between pruned features: output i is the input `source[i]`, or zero."""

    source: Tensor

    def __init__(self, channels_in: int, source: Tensor) -> None:
        super().__init__(channels_in, len(source))
        self.register_buffer("source", source)

    @classmethod
    def of(cls, shortcut: OptionAShortcut) -> "SourcedShortcut":
        """Make the same as `shortcut`. The input beyond the last one is zero."""
        inputs, new = shortcut.channels_in, shortcut.new_channels
        return cls(inputs, F.pad(torch.arange(inputs), (new // 2, new - new // 2), value=inputs))

    def lose_outputs(self, indices: list[int]) -> None:
        """Remove these outputs."""
        self.source = self.source[[index for index in range(len(self.source)) if index not in indices]]

    def lose_inputs(self, indices: list[int]) -> None:
        """Remove these inputs: the outputs that came from them are zero."""
        kept = [index for index in range(self.channels_in) if index not in indices]
        place = torch.full((self.channels_in + 1,), len(kept))
        place[kept] = torch.arange(len(kept))
        self.source, self.channels_in = place[self.source], len(kept)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H/2, W/2]."""
        x = x[:, :, ::2, ::2]
        return torch.cat([x, torch.zeros_like(x[:, :1])], dim=1).index_select(1, self.source)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, activated after the addition."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else OptionAShortcut(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W']."""
        # In place: these are the largest tensors there are, and new ones cost as much as the arithmetic.
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)

    def skip(self, x: Tensor) -> Tensor:
        """Compute the output of the block for x [B, C, H, W], if its convolutions add nothing."""
        return F.relu(self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-(6n + 2) for images [B, 3, 32, 32]."""

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, BasicBlock):
                # Together the blocks add four times the stem's variance, however many: else the deepest do not train
                # from scratch (De and Smith, 2020, "Batch normalization biases residual blocks towards the identity").
                nn.init.constant_(module.bn2.weight, 2 / math.sqrt(3 * blocks))

    def stem(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> features [B, 16, H, W]."""
        return F.relu(self.bn1(self.conv1(x)))

    def head(self, x: Tensor) -> Tensor:
        """Features [B, 64, H, W] -> logits [B, classes]."""
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> logits [B, classes]."""
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))


def _stage(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1) for _ in range(blocks - 1)))


def _shortcut(block: BasicBlock) -> Callable[[Tensor], Tensor] | None:
    return block.skip if isinstance(block.shortcut, OptionAShortcut) else None


@register_adapter(CifarResNet)
def adapt_cifar(model: CifarResNet, spec: ModelSpec) -> Backbone:
    """See a CIFAR ResNet as stem, units and head."""
    units = residual_units(model, ("layer1", "layer2", "layer3"), _shortcut)
    return Backbone(model, spec, model.stem, units, model.head, classifier="linear")
