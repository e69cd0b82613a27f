"""A policy network: a small ResNet that sees the image and scores all units at once (BlockDrop, Wu et al., 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.errors import InputError
from routekit.routing.router import JunctionShape, RouterBank, RouterConfig, banks, open_head

# BlockDrop's policy network for CIFAR has three blocks, of 16, 32 and 64 channels (a ResNet-8). It sees at most so many
# pixels a side: larger images are averaged.
CHANNELS, SIDE = (16, 32, 64), 32


class _Block(nn.Module):
    """A residual block of two 3x3 convolutions, the first one with a stride."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        added: Tensor = F.relu(out + self.shortcut(x))
        return added


@banks.register("policy")
class PolicyNetwork(RouterBank):
    """Scores the sinks of all units from the image, before the first unit. Its cost counts as any other router's."""

    surveys = sees_image = True

    def __init__(self, shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> None:
        if priced:
            raise InputError("routers of kind policy get no price: another kind, or no adaptive_cost")
        (sinks,) = {shape.sinks for shape in shapes} or {2}
        super().__init__(len(shapes), config, width=sinks - 1)
        self.stem = nn.Sequential(
            nn.Conv2d(shapes[0].image, CHANNELS[0], 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU()
        )
        first, second, third = CHANNELS
        self.blocks = nn.Sequential(_Block(first, first, 1), _Block(first, second, 2), _Block(second, third, 2))
        self.heads = nn.ModuleList(open_head(CHANNELS[-1], config.open_logit, sinks) for _ in shapes)

    def policy(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` -> logits `[B, n, K]` of all junctions."""
        if max(images.shape[-2:]) > SIDE:
            images = F.adaptive_avg_pool2d(images, SIDE)
        summary = F.adaptive_avg_pool2d(self.blocks(self.stem(images)), 1).flatten(1)
        return torch.stack([head(summary) for head in self.heads], dim=1)

    def remove(self, index: int) -> bool:
        """Remove the junction's scores."""
        del self.heads[index]
        return True
