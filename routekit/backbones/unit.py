"""A pretrained network as routekit sees it: a stem, a chain of residual units, a head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelSpec:
    """What is needed to build the same architecture again, and to feed it.

    Attributes:
        source: "cifar", "timm", "torchvision" or "custom".
        name: The source's name for it.
        num_classes: The number of classes.
        input_size: (channels, height, width) of its images.
        mean, std: Of each channel, on images scaled to [0, 1]; one value is for all channels.
        crop: The share of an image's centre that is seen; None for what is usual at this size: 0.875 from 96 pixels
            on, all of it below.
        interpolation: How images are resized.
    """

    source: str
    name: str
    num_classes: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: float | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def full_name(self) -> str:
        """The name that `load_backbone` takes, e.g. "timm:resnet50"; CIFAR networks go by their bare name."""
        return self.name if self.source == "cifar" else f"{self.source}:{self.name}"

    @property
    def label(self) -> str:
        """The name for people: of a network that a file makes, without the file's folders."""
        return self.name.rpartition("/")[2] if ".py:" in self.name else self.full_name


class Sink(Enum):
    """Where an image can go at a unit, beside its branches, which are modules."""

    RUN = "run"
    SKIP = "skip"


@dataclass
class ResidualUnit:
    """One residual block and its sinks: run it, or skip it (Eq. 2 of Wang et al.), or take a branch.

    Running it is the block's own forward, so that running every unit is the original network bit for bit, whatever
    the block holds (squeeze-and-excitation, blur pooling, drop path). What a unit can do is said by whoever views the
    model (`skippable`, `branchable`); which of it images may choose, its `sinks`, by `convert`. With one sink there is
    nothing to decide: the unit always runs, or was dropped.

    name:       the block's path in the model, e.g. "layer2.0"
    block:      the original module
    stage:      0-based index of the stage (the feature size) that the unit's output belongs to
    shortcut:   what a skipped unit computes: None for the identity, which leaves the features unchanged, else the
                down-sampling shortcut with whatever follows the addition (the activation)
    skippable:  whether it can be skipped: False for a piece of the network that always runs
    branchable: whether such a piece can at least have branches, of which one always runs
    sinks:      what images can choose, the dearest first; the last one is the default
    """

    name: str
    block: nn.Module
    stage: int
    shortcut: Callable[[Tensor], Tensor] | None = None
    skippable: bool = True
    branchable: bool = False
    sinks: tuple[Sink | nn.Module, ...] = (Sink.RUN,)

    @property
    def computes(self) -> bool:
        """Whether there is anything in it: an exit may lie before the first block, after a unit of nothing."""
        return not isinstance(self.block, nn.Identity)

    @property
    def decides(self) -> bool:
        """Whether it has a junction: more than one sink."""
        return len(self.sinks) > 1

    @property
    def dropped(self) -> bool:
        """Whether no image runs the block any more: it is gone for good."""
        return self.sinks[0] is not Sink.RUN

    @property
    def branches(self) -> tuple[nn.Module, ...]:
        """What can be computed in the block's place."""
        return tuple(sink for sink in self.sinks if isinstance(sink, nn.Module))

    @property
    def keeps(self) -> bool:
        """Whether the features are left as they are by default."""
        return self.sinks[-1] is Sink.SKIP and self.shortcut is None

    def take(self, x: Tensor, sink: int) -> Tensor:
        """Features [B, C, H, W] -> what leaves the unit by one of its sinks: 0 is the dearest, -1 the default."""
        taken = self.sinks[sink]
        if taken is Sink.SKIP:
            return self.skip(x)
        out: Tensor = self.block(x) if taken is Sink.RUN else taken(x)
        return out

    def run(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> what leaves the unit at the most: the block's output, unless it was dropped."""
        return self.take(x, 0)

    def skip(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> what leaves the unit if its residual branch is not computed: the shortcut alone."""
        return x if self.shortcut is None else self.shortcut(x)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode for as long as it lasts; then each module has its own mode again, whatever happened."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@dataclass(frozen=True)
class Fold:
    """Paths in the model of a convolution and of the batch norm that alone reads its output."""

    conv: str
    norm: str


@dataclass
class Backbone:
    """A model and the view of it that routing needs; `model` keeps its own parameter names and forward.

    Invariant: `head(units[-1].run(... units[0].run(stem(x))))` equals `model(x)` bit for bit in eval mode.
    `stem` and `head` are bound methods of modules or of plain objects that hold modules, never closures, so
    that a deep copy of a network copies its view as well. `notes` are sentences for the user (what was replaced).
    `classifier` is the path of the last linear layer inside `model`. `summary` says what exits look at: features
    [B, C, H, W] -> [B, S]; None for the average over the image. `pruned` is True if layers have fewer channels than
    those of `spec`. `step` says in multiples of how many channels layers are pruned, and narrow forms made; None until
    it is decided (`narrow.channel_step`).
    """

    model: nn.Module
    spec: ModelSpec
    stem: Callable[[Tensor], Tensor]
    units: list[ResidualUnit]
    head: Callable[[Tensor], Tensor]
    classifier: str = ""
    summary: Callable[[Tensor], Tensor] | None = None
    notes: list[str] = field(default_factory=list)
    pruned: bool = False
    step: int | None = None

    @property
    def computing(self) -> list[ResidualUnit]:
        """The units in which there is anything to compute."""
        return [unit for unit in self.units if unit.computes]


@torch.no_grad()
def example_input(view: Backbone) -> Tensor:
    """One blank image `[1, C, H, W]`, on the model's device and in its dtype."""
    parameter = next(view.model.parameters())
    return torch.zeros(1, *view.spec.input_size, device=parameter.device, dtype=parameter.dtype)
