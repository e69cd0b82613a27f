"""The classifiers of exits: features [B, C, H, W] after some unit -> logits [B, classes].

A new one is a class, built from where it lies and from how large it is to be, and a decorator.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routekit.backbones.narrow import narrow, stand_alone
from routekit.backbones.unit import Backbone, ResidualUnit, evaluating
from routekit.registry import Registry
from routekit.routing.router import pool


@dataclass(frozen=True)
class Place:
    """Where an exit lies: after the unit `after` of `view`; its output has `channels`, and a summary of `features`."""

    view: Backbone
    after: str
    channels: int
    features: int

    @property
    def summarize(self) -> Callable[[Tensor], Tensor]:
        """What exits look at: features [B, C, H, W] -> [B, features]."""
        return self.view.summary or pool

    @property
    def classes(self) -> int:
        """How many classes the network knows."""
        return self.view.spec.num_classes


@dataclass(frozen=True)
class Size:
    """How large a classifier is: `width` channels, or the share `keep` of the channels inside the network's own units.

    It has the share `depth` of each stage's units; with `own`, they have weights of their own. Each kind of classifier
    looks at what concerns it.
    """

    width: int
    keep: float
    own: bool = False
    depth: float = 1.0


heads: Registry[Callable[[Place, Size], nn.Module]] = Registry("exit head")


# The head of a network itself, where an exit lies after the last unit.
OWN = "own"


@heads.register(OWN)
class OwnHead(nn.Module):
    """The network's own head, which is not registered: it learns and is saved where it is at home."""

    def __init__(self, place: Place, size: Size) -> None:
        super().__init__()
        del size
        self._head = place.view.head

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        return self._head(x)


@heads.register("linear")
class LinearHead(nn.Module):
    """A summary of the features, which is their average unless the network says otherwise; linear layer."""

    def __init__(self, place: Place, size: Size) -> None:
        super().__init__()
        del size
        self.summarize = place.summarize
        self.classifier = nn.Linear(place.features, place.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(self.summarize(x))
        return logits


@heads.register("conv")
class ConvolutionalHead(nn.Module):
    """Strided 3x3 convolution, average pool, linear layer."""

    def __init__(self, place: Place, size: Size) -> None:
        super().__init__()
        self.conv = nn.Conv2d(place.channels, size.width, 3, stride=2, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(size.width)
        self.classifier = nn.Linear(size.width, place.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(pool(torch.relu(self.norm(self.conv(x)))))
        return logits


@heads.register("deep")
class DeepHead(nn.Module):
    """Three 3x3 convolutions, average pool, linear layer: it makes features of a coarser scale out of early ones.

    As in Multi-Scale Dense Networks (Huang et al., 2018), convolutions with strides come first, where features are
    fine: for little more than the one of `ConvolutionalHead` costs, an answer sees much more of the image.
    """

    def __init__(self, place: Place, size: Size) -> None:
        super().__init__()
        widths = [place.channels, max(1, size.width // 2), size.width, size.width]
        steps = zip(itertools.pairwise(widths), (2, 2, 1), strict=True)
        self.convs = nn.Sequential(*(_normalized(before, after, stride) for (before, after), stride in steps))
        self.classifier = nn.Linear(size.width, place.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.classifier(pool(self.convs(x)))
        return logits


def _normalized(before: int, after: int, stride: int) -> nn.Sequential:
    """Build a 3x3 convolution with its normalisation."""
    conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


@heads.register("narrow")
class NarrowRest(nn.Module):
    """The rest of the network itself, narrow or shallow: units behind the exit, with some of their inner channels.

    Its convolutions are the network's own (`backbones/narrow.py`) or, with `size.own`, begin as they are; its batch
    norms and its classifier are not shared in any case. Of each stage it has the first unit behind the exit, and of the
    others as many as `size.depth` asks for: the first answer comes from all stages.
    """

    def __init__(self, place: Place, size: Size) -> None:
        super().__init__()
        twin = copy.deepcopy(place.view)
        first = [unit.name for unit in twin.units].index(place.after) + 1
        rest = [unit for unit in twin.units[first:] if unit.computes]
        self._head, self._units = twin.head, shallow(rest, size.depth)
        # Registered is what it has of its own; nothing else of the copied model is used.
        self.end = nn.ModuleList(called_by_head(twin))
        kept = {unit.name for unit in self._units}
        for unit, full in zip(twin.units, place.view.units, strict=True):
            if unit.name in kept:
                unit.block = narrow(full.block, size.keep, twin.step or 1)
            if unit.computes:
                twin.model.set_submodule(unit.name, unit.block if unit.name in kept else nn.Identity())
        self.blocks = nn.ModuleList(unit.block for unit in self._units)
        if size.own:
            stand_alone(self)

    def forward(self, x: Tensor, kept: dict[int, Tensor] | None = None) -> Tensor:
        """Classify; what leaves each stage is put into `kept`."""
        for unit in self._units:
            x = unit.run(x)
            if kept is not None:
                kept[unit.stage] = x
        return self._head(x)


def shallow(units: Sequence[ResidualUnit], depth: float) -> list[ResidualUnit]:
    """Of the units of each stage its first, which makes its shape, and others evenly: the share `depth`, at least one.

    What is left out kept the shape of its features, so that the others fit together.
    """
    kept: list[ResidualUnit] = []
    for _, group in itertools.groupby(units, key=lambda unit: unit.stage):
        stage = list(group)
        count = max(1, round(depth * len(stage)))
        kept += [stage[place * len(stage) // count] for place in range(count)]
    return kept


@torch.no_grad()
def called_by_head(view: Backbone) -> list[nn.Module]:
    """The modules with parameters or buffers that the head of `view` calls, found by running a blank image."""
    called: list[nn.Module] = []
    own = [module for module in view.model.modules() if [*module.parameters(False), *module.buffers(False)]]
    with evaluating(view.model):
        parameter = next(view.model.parameters())
        x = view.stem(torch.zeros(1, *view.spec.input_size, device=parameter.device, dtype=parameter.dtype))
        for unit in view.units:
            x = unit.run(x)
        hooks = [module.register_forward_pre_hook(lambda module, _: called.append(module)) for module in own]
        view.head(x)
        for hook in hooks:
            hook.remove()
    return called
