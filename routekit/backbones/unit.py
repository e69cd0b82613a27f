"""A pretrained network as routekit sees it: a stem, a chain of residual units, a head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class ModelSpec:
    """What is needed to build the same architecture again, and to feed it.

    `source` is "cifar", "timm", "torchvision" or "custom"; `input_size` is (channels, height, width);
    `mean` and `std` are per channel, on images scaled to [0, 1].
    """

    source: str
    name: str
    num_classes: int
    input_size: tuple[int, int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def full_name(self) -> str:
        """The name that `load_backbone` takes, e.g. "timm:resnet50"; CIFAR networks go by their bare name."""
        return self.name if self.source == "cifar" else f"{self.source}:{self.name}"


@dataclass
class ResidualUnit:
    """One residual block, seen as two ways on: run it, or skip it (Eq. 2 of Wang et al.); or as more, with branches.

    `run` is the block's own forward, so that running every unit is the original network bit for bit, whatever
    the block holds (squeeze-and-excitation, blur pooling, drop path). `skip` is its shortcut alone. The sinks of its
    junction are the block, the `branches`, and skipping it unless one of the branches always runs.

    name:       the block's path in the model, e.g. "layer2.0"
    block:      the original module
    stage:      0-based index of the stage (the feature size) that the unit's output belongs to
    shortcut:   what a skipped unit computes: None for the identity, which leaves the features unchanged, else the
                down-sampling shortcut with whatever follows the addition (the activation)
    skippable:  False for a piece of the network that always runs
    branchable: whether such a piece can at least have branches, of which one always runs
    dropped:    True for a unit that no image runs any more: its residual branch is gone for good
    branches:   what can be computed in the block's place, the dearest first
    always:     whether the last branch is what is computed by default, so that the unit is never skipped
    """

    name: str
    block: nn.Module
    stage: int
    shortcut: Callable[[Tensor], Tensor] | None = None
    skippable: bool = True
    branchable: bool = False
    dropped: bool = False
    branches: tuple[nn.Module, ...] = ()
    always: bool = False

    @property
    def computes(self) -> bool:
        """Whether there is anything in it: an exit may lie before the first block, after a unit of nothing."""
        return not isinstance(self.block, nn.Identity)

    @property
    def sinks(self) -> int:
        """How many ways on there are."""
        return 1 + len(self.branches) + (not self.always)

    @property
    def keeps(self) -> bool:
        """Whether the features are left as they are by default."""
        return self.shortcut is None and not self.always

    def run(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> the block's output."""
        if self.dropped:
            return self.skip(x)
        out: Tensor = self.block(x)
        return out

    def take(self, x: Tensor, sink: int) -> Tensor:
        """Features [B, C, H, W] -> what leaves the unit by one of its sinks."""
        if sink == 0:
            return self.run(x)
        if sink > len(self.branches):
            return self.skip(x)
        out: Tensor = self.branches[sink - 1](x)
        return out

    def skip(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> what leaves the unit by default: when its residual branch is not computed."""
        if self.always:
            out: Tensor = self.branches[-1](x)
            return out
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
    it is decided (`narrow.channel_step`). `folded` says which batch norms are in the convolutions before them.
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
    folded: list[Fold] = field(default_factory=list)
