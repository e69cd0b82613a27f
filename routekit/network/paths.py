"""Paths that never meet again: modules of which an image goes through its own path's.

Features say which path they are on, in a last channel, so that nothing that handles the features of several images
needs to know of paths. Trees of paths are grown by `junctions/tree.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit
from routekit.network.deciders import Decider, DeciderConfig, LearnedDecider

# A fork has two sinks: the first is that of the network which the tree grew from.
SINKS = 2


def unmark(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features on their paths [B, C + 1, H, W] -> the features [B, C, H, W], and the paths' numbers [B] int64."""
    return features[:, :-1], features[:, -1, 0, 0].round().long()


def mark(features: Tensor, paths: Tensor) -> Tensor:
    """Write the path of each image into its features.

    Args:
        features: `[B, C, H, W]`.
        paths: `[B]`, the numbers of the paths.

    Returns:
        `[B, C + 1, H, W]`, features on their paths.
    """
    marked = F.pad(features, (0, 0, 0, 0, 0, 1))  # which keeps the memory format; torch.cat does not
    marked[:, -1] = paths.to(features.dtype).view(-1, 1, 1)
    return marked


def arrive(features: Tensor, paths: int) -> tuple[Tensor, Tensor]:
    """Read the path of each image from its features.

    Args:
        features: On their paths, `[B, C + 1, H, W]`; of a single path they have no last channel.
        paths: The number of paths.

    Returns:
        The features `[B, C, H, W]`, and the numbers of the paths `[B]`, int64.
    """
    return unmark(features) if paths > 1 else (features, features.new_zeros(len(features), dtype=torch.int64))


def follow(modules: Sequence[Callable[..., Tensor]], paths: Tensor, *inputs: Tensor) -> Tensor:
    """Call, for the images of each path, the callable of that path.

    Args:
        modules: One callable for each path.
        paths: `[B]`, the path of each image.
        *inputs: `[B, ...]` each: what the callables take.

    Returns:
        `[B, ...]`, what they give, in the order of the inputs.
    """
    counts = paths.bincount(minlength=len(modules)).tolist()
    sorted_already = bool((paths.diff() >= 0).all())  # as in training; moving features takes as long as using them
    order = None if sorted_already else paths.argsort(stable=True)
    parts = zip(*(torch.split(x if order is None else x[order], counts) for x in inputs), strict=True)
    made = torch.cat([module(*own) for module, own in zip(modules, parts, strict=True) if len(own[0])])
    return made if order is None else made[order.argsort()]


class Paths(nn.Module):
    """One module of a kind for each path, such as a unit or a head. An image goes through the module of its path.

    Args:
        each: The modules, by the number of the path.
        turn: Behind this an image is on path `SINKS * path + turn`; None where it stays on its own.
        marks: Whether what comes out is features, on their paths.
    """

    def __init__(self, each: Sequence[nn.Module], *, turn: int | None = None, marks: bool = True) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)
        self.turn, self.marks = turn, marks

    def forward(self, x: Tensor) -> Tensor:
        """Features on their paths -> features on theirs, or what the modules make of them."""
        x, paths = arrive(x, len(self.each))
        made: Tensor = follow(list(self.each), paths, x)
        if not self.marks:
            return made
        return mark(made, paths if self.turn is None else SINKS * paths + self.turn)


class PathDecider(Decider):
    """A decider for each path, at one place in a tree. They share the bias."""

    def __init__(self, config: DeciderConfig, each: Sequence[LearnedDecider]) -> None:
        super().__init__(config)
        self.own = nn.ModuleList(each)

    @property
    def each(self) -> list[Decider]:
        """The deciders of the paths."""
        return [own for own in self.own if isinstance(own, Decider)]

    @property
    def learns(self) -> bool:
        """Whether training teaches it."""
        return True

    def forward(self, x: Tensor, logits: Tensor, prices: Tensor | None = None) -> Tensor:
        """Features on their paths, and the answers -> scores `[B, 2]`."""
        del prices
        x, paths = arrive(x, len(self.own))
        go, stop = follow(self.each, paths, x, logits).tensor_split(2, dim=1)
        return torch.cat([go + self.bias, stop], dim=1)

    def fold(self) -> None:
        """Fold the deciders of all paths."""
        for own in self.each:
            own.fold()


def every_way(module: nn.Module, features: Tensor) -> Tensor:
    """Call a module; where there is one for each path, call those of all paths.

    Args:
        module: The module.
        features: On their paths, where there are several.

    Returns:
        What the module gives for these features.
    """
    if isinstance(module, Paths):
        seen = arrive(features, len(module.each))[0]
        for each in module.each:
            each(seen)
    made: Tensor = module(features)
    return made


def on_paths(unit: ResidualUnit) -> list[nn.Module]:
    """The blocks of `unit` on each path that leads out of it, or the one that it has."""
    sinks = [list(sink.each) for sink in (unit.block, *unit.branches) if isinstance(sink, Paths)]
    return [block for blocks in zip(*sinks, strict=True) for block in blocks] or [unit.block]


def first_path(view: Backbone) -> Backbone:
    """The chain that a tree grew from; of what is no tree, itself."""
    units = [replace(unit, block=unit.block.each[0]) if isinstance(unit.block, Paths) else unit for unit in view.units]
    heads = getattr(view.head, "__self__", None)
    return replace(view, units=units, head=heads.each[0] if isinstance(heads, Paths) else view.head)
