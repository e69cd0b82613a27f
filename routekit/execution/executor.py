"""The sparse executor: inference that computes, for each image, only the units that its route runs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.unit import ResidualUnit
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class Answer:
    """What a batch got.

    logits:   [B, classes], float32
    margins:  [B, n] by how much each router preferred to run its unit; a unit runs where it is not negative
    """

    logits: Tensor
    margins: Tensor

    @property
    def routes(self) -> Tensor:
        """[B, n] bool: the units that ran."""
        return self.margins >= 0


@dataclass(frozen=True)
class Segment:
    """Units in a row: a group of junctions that see the same features while they are skipped, or one that always runs.

    `junctions` is empty for a unit that always runs. Only the last unit of a group can have a shortcut of its own.
    """

    units: list[ResidualUnit]
    junctions: range


class SparseExecutor(nn.Module):
    """Executes `network` in eval mode: what is skipped is not computed, for one image or a batch of any size.

    Where the images of a batch disagree, those that run a unit are gathered, computed and put back. Routers are asked
    once per group of junctions, and again, only for the images that ran it, after each unit that ran: a skipped unit
    leaves the features as they are, so the last survey holds. `CostModel` charges exactly this.
    """

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network.eval()
        self.segments = segments(network)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Answer:
        """Images [B, C, H, W], normalised -> their logits and margins."""
        view = self.network.view
        images, x = x, view.stem(x)
        if x.untyped_storage().data_ptr() == images.untyped_storage().data_ptr():
            x = x.clone()  # the caller's images are not ours to change
        margins: list[Tensor] = []
        state: Any = None
        for segment in self.segments:
            if segment.junctions:
                x, asked, state = self._group(segment, x, state)
                margins.append(asked)
            else:
                x = segment.units[0].run(x)
        return Answer(view.head(x).float(), torch.cat(margins, dim=1))

    def _group(self, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Take a batch through a group: features in -> features out, margins [B, m], the routers' state."""
        routers, junctions, units = self.network.routers, segment.junctions, segment.units
        margins, state = routers.survey(junctions, x, state)
        at = 0
        while at < len(units):
            runs = margins[:, at:] >= 0
            wanted = runs.any(dim=0).tolist()
            if True not in wanted:
                break
            ahead = wanted.index(True)
            at += ahead
            rest = junctions[at + 1 :]
            x, ran, rows = execute(units[at], x, runs[:, ahead])
            if rest:
                margins[rows, at + 1 :] = routers.survey(rest, ran, state)[0]
            at += 1
        else:
            return x, margins, state
        return units[-1].skip(x), margins, state


def execute(unit: ResidualUnit, x: Tensor, runs: Tensor) -> tuple[Tensor, Tensor, Tensor | slice]:
    """Run `unit` for the images of `runs` [B] bool, at least one, and skip it for the others.

    Returns the features of all images, those of the images that ran it, and which these are. Where the shortcut is the
    identity, `x` is changed in place.
    """
    rows = runs.nonzero().squeeze(1)
    if len(rows) == len(x):
        x = unit.run(x)
        return x, x, slice(None)
    ran = unit.run(take(x, rows))
    if unit.shortcut is not None:
        others = (~runs).nonzero().squeeze(1)
        skipped = unit.skip(take(x, others)).to(ran.dtype)
        x = torch.empty_like(ran[:1].expand(len(x), -1, -1, -1))
        put(x, others, skipped)
    put(x, rows, ran)
    return x, ran, rows


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Gather samples of x [B, C, H, W], in its own memory format."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return x.index_select(0, rows)


def put(x: Tensor, rows: Tensor, values: Tensor) -> None:
    """Put samples back into x [B, C, H, W], in place."""
    x.permute(0, 2, 3, 1).index_copy_(0, rows, values.permute(0, 2, 3, 1))


def segments(network: RoutedNetwork) -> list[Segment]:
    """Divide the units of `network` into groups of junctions and units that always run, in order."""
    groups = iter(network.groups)
    found: list[Segment] = []
    left = 0
    for unit in network.view.units:
        if not unit.skippable:
            # A dropped unit without a shortcut of its own is not there at all.
            if not unit.dropped or unit.shortcut is not None:
                found.append(Segment([unit], range(0)))
                left = 0
            continue
        if not left:
            group = next(groups)
            found.append(Segment([], group))
            left = len(group)
        found[-1].units.append(unit)
        left -= 1
    return found
