"""A pretrained network as routekit sees it: a stem, a chain of residual units, a head."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from routekit.data.preprocessing import Interpolation, Preprocessing
from routekit.errors import InputError


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
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Raise InputError for sizes without bounds, or a mean or deviation that images cannot be normalised by."""
        channels, *sides = self.input_size
        if not (0 < self.num_classes <= 10**6 and 0 < channels <= 1024 and all(0 < side <= 8192 for side in sides)):
            raise InputError(
                f"{self.source}:{self.name[:100]} for {self.num_classes} classes and images of {self.input_size}: at "
                "most a million classes, 1024 channels and 8192 pixels"
            )
        for name, values, least in (("mean", self.mean, -math.inf), ("std", self.std, 0.0)):
            finite = all(math.isfinite(value) and value > least for value in values)
            if len(values) not in (1, 3, channels) or not finite:
                raise InputError(f"{self.source}:{self.name} normalises images by {name}={[*values]}")

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are read for the network. Raises InputError if it takes neither RGB nor grey ones."""
        channels, height, width = self.input_size
        return Preprocessing((height, width), channels, self.crop, self.interpolation)

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

    Running it is the block's own forward. So running every unit is the original network bit for bit, whatever the block
    holds (squeeze-and-excitation, blur pooling, drop path). The adapter sets what a unit can do: `skippable`,
    `branchable`. `convert` sets its `sinks`. With one sink there is no decision: the unit always runs, or was dropped.

    Attributes:
        name: The block's path in the model, e.g. "layer2.0".
        block: The original module.
        stage: 0-based index of the stage (the feature size) of the unit's output.
        shortcut: What a skipped unit computes. None for the identity; otherwise the down-sampling shortcut and what
            follows the addition (the activation).
        skippable: Whether it can be skipped. False for a piece of the network that always runs.
        branchable: Whether such a piece can have branches, of which one always runs.
        sinks: What images can choose, the most expensive one first. The last one is the default.
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
        """Whether it has a block. An exit may lie before the first block, after a unit without one."""
        return not isinstance(self.block, nn.Identity)

    @property
    def decides(self) -> bool:
        """Whether it has a junction: more than one sink."""
        return len(self.sinks) > 1

    @property
    def dropped(self) -> bool:
        """Whether the block was removed, so that no image runs it."""
        return self.sinks[0] is not Sink.RUN

    @property
    def branches(self) -> tuple[nn.Module, ...]:
        """What can be computed in the block's place."""
        return tuple(sink for sink in self.sinks if isinstance(sink, nn.Module))

    @property
    def keeps(self) -> bool:
        """Whether the default does not change the features."""
        return self.sinks[-1] is Sink.SKIP and self.shortcut is None

    def take(self, x: Tensor, sink: int) -> Tensor:
        """Compute one of the unit's sinks.

        Args:
            x: Features [B, C, H, W].
            sink: The index of the sink: 0 is the most expensive one, -1 the default.

        Returns:
            Features [B, C', H', W'].
        """
        taken = self.sinks[sink]
        if taken is Sink.SKIP:
            return self.skip(x)
        out: Tensor = self.block(x) if taken is Sink.RUN else taken(x)
        return out

    def run(self, x: Tensor) -> Tensor:
        """Compute the most expensive sink of features [B, C, H, W]: the block, unless it was dropped."""
        return self.take(x, 0)

    def skip(self, x: Tensor) -> Tensor:
        """Compute the shortcut of features [B, C, H, W], without the residual branch."""
        return x if self.shortcut is None else self.shortcut(x)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models into eval mode in this context. Afterwards each module has its own mode again."""
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
    """Paths in the model: of a convolution, and of a batch norm, the only reader of its output."""

    conv: str
    norm: str


class Chain:
    """Parts of a model, called in a row.

    A part with a name is looked up at each call, because it may be replaced: a batch norm is folded, for example.
    """

    def __init__(self, model: nn.Module, *parts: str | nn.Module) -> None:
        self.model, self.parts = model, parts

    def __call__(self, x: Tensor) -> Tensor:
        """Call the parts: [B, ...] -> [B, ...]."""
        for part in self.parts:
            x = (getattr(self.model, part) if isinstance(part, str) else part)(x)
        return x


def residual_units(
    model: nn.Module, stages: Sequence[str], shortcut: Callable[[Any], Callable[[Tensor], Tensor] | None]
) -> list[ResidualUnit]:
    """View the blocks of a ResNet as units.

    Args:
        model: The network.
        stages: The paths of its stages, each a sequence of blocks.
        shortcut: From a block to what it computes if it is skipped; None for the identity.

    Returns:
        The units, in order.
    """
    return [
        ResidualUnit(f"{path}.{index}", block, stage, shortcut(block))
        for stage, path in enumerate(stages)
        for index, block in enumerate(model.get_submodule(path).children())
    ]


@dataclass
class Backbone:
    """A model and the view of it that routing needs; `model` keeps its own parameter names and forward.

    Invariant: `head(units[-1].run(... units[0].run(stem(x))))` equals `model(x)` bit for bit in eval mode.

    Attributes:
        model: The network.
        spec: Its specification.
        stem: Images -> features. As `head`, it is an object that holds modules, or a bound method of one. It is never a
            closure: a deep copy of a network must copy its view as well.
        units: The residual units, in order.
        head: Features -> logits.
        classifier: The path of the last linear layer inside `model`.
        summary: What exits read, features [B, C, H, W] -> [B, S]; None for the average over the image.
        notes: Sentences for the user, about what was replaced.
        pruned: Whether layers have fewer channels than those of `spec`.
        step: Pruned and narrow layers have multiples of so many channels. None until it is decided
            (`narrow.channel_step`).
        resolution: The height and width at which the network sees images, which come in the size of `spec` and are
            resized in the forward pass. None where it is the same.
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
    resolution: tuple[int, int] | None = None

    @property
    def computing(self) -> list[ResidualUnit]:
        """The units that have a block."""
        return [unit for unit in self.units if unit.computes]


def example_input(view: Backbone) -> Tensor:
    """Make one blank image `[1, C, H, W]` as it comes in, on the model's device and in its dtype."""
    return torch.zeros(1, *view.spec.input_size).to(next(view.model.parameters()))


def seen_input(view: Backbone) -> Tensor:
    """Make one blank image `[1, C, H, W]` as the network sees it, at its own resolution."""
    image = example_input(view)
    return image if view.resolution is None else image.new_zeros(*image.shape[:2], *view.resolution)
