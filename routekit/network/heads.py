"""The classifiers of exits: features `[B, C, H, W]` after some unit -> logits `[B, classes]`.

A new one is a class, built from where it lies and from its width, and a decorator.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, evaluating, seen_input
from routekit.backbones.walk import walk
from routekit.registry import Registry
from routekit.routing.router import pool


@dataclass(frozen=True)
class Place:
    """A place in a network: after the unit `after` of `view`.

    Attributes:
        view: The network.
        after: The unit's name; "stem" before the first unit.
        channels: The channels of its features.
        features: The length of their summary.
    """

    view: Backbone
    after: str
    channels: int
    features: int

    @property
    def summarize(self) -> Callable[[Tensor], Tensor]:
        """What exits look at: features `[B, C, H, W]` -> `[B, features]`."""
        return self.view.summary or pool

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.view.spec.num_classes


@torch.no_grad()
def places(view: Backbone) -> list[Place]:
    """Run one blank image through the network: what lies before the first unit, and after each."""
    with evaluating(view.model):
        x, summarize = view.stem(seen_input(view)), view.summary or pool
        found = [Place(view, "stem", x.shape[1], summarize(x).shape[1])]
        for unit, _, after in walk(view.units, x):
            found.append(Place(view, unit.name, after.shape[1], summarize(after).shape[1]))
    return found


def xavier(layer: nn.Linear) -> nn.Linear:
    """Initialise a linear layer: weights by Xavier's method, biases as zero (section 4.7 of McGill and Perona)."""
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


heads: Registry[Callable[[Place, int], nn.Module]] = Registry("exit head")


@heads.register("linear")
class LinearHead(nn.Module):
    """A linear layer on a summary of the features, which is their average unless the network says otherwise."""

    def __init__(self, place: Place, width: int) -> None:
        super().__init__()
        del width
        self.summarize = place.summarize
        self.classifier = xavier(nn.Linear(place.features, place.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(self.summarize(x))
        return logits


@heads.register("conv")
class ConvolutionalHead(nn.Module):
    """A strided 3x3 convolution to `width` channels, average pooling, a linear layer."""

    def __init__(self, place: Place, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(place.channels, width, 3, stride=2, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, place.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(pool(torch.relu(self.norm(self.conv(x)))))
        return logits


@heads.register("deep")
class DeepHead(nn.Module):
    """Three 3x3 convolutions, average pooling, a linear layer: it makes features of a coarser scale out of early ones.

    As in Multi-Scale Dense Networks (Huang et al., 2018), convolutions with strides come first, where features are
    fine. For little more than the one of `ConvolutionalHead` costs, an answer sees much more of the image.
    """

    def __init__(self, place: Place, width: int) -> None:
        super().__init__()
        widths = [place.channels, max(1, width // 2), width, width]
        steps = zip(itertools.pairwise(widths), (2, 2, 1), strict=True)
        self.convs = nn.Sequential(*(_normalized(before, after, stride) for (before, after), stride in steps))
        self.classifier = nn.Linear(width, place.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(pool(self.convs(x)))
        return logits


def _normalized(before: int, after: int, stride: int) -> nn.Sequential:
    """Build a 3x3 convolution with its normalisation."""
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())
