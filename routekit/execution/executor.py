"""The sparse executor: inference that computes, for each image, only the units that its route runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from routekit.backbones.unit import ResidualUnit
from routekit.network.exits import Exit
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import GO, STOP, decided
from routekit.routing.router import RouterBank


@dataclass(frozen=True)
class Answer:
    """What a batch got.

    logits:   [B, classes], float32
    margins:  [B, n] by how much each router preferred to run its unit, or to go on; a unit runs where it is not
              negative; -inf behind an exit that was taken, and for ways through a unit that lost to another
    """

    logits: Tensor
    margins: Tensor

    @property
    def routes(self) -> Tensor:
        """[B, n] bool: the units that ran, and the exits that were passed."""
        return self.margins >= 0


@dataclass
class Segment:
    """Units in a row: a group of junctions that see the same features while they are skipped, or one that always runs.

    `junctions` is empty for a unit that always runs. Only the last unit of a group can compute something by default, or
    have an exit after it.
    """

    units: list[ResidualUnit]
    junctions: range
    exit: Exit | None = None


class SparseExecutor(nn.Module):
    """Executes `network` in eval mode: what is skipped is not computed, for one image or a batch of any size.

    Where the images of a batch disagree, those that run a unit are gathered, computed and put back. Routers are asked
    once per group of junctions, and again, only for the images that ran it, after each unit that ran: a skipped unit
    leaves the features as they are, so the last survey holds. An image that takes an exit leaves the batch. `CostModel`
    charges exactly this.
    """

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network.eval()
        self.segments = segments(network)
        self.units, self.columns = len(network.layout.sections), len(network.columns)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Answer:
        """Images [B, C, H, W], normalised -> their logits and margins."""
        view = self.network.view
        images, x = x, view.stem(x)
        if x.untyped_storage().data_ptr() == images.untyped_storage().data_ptr():
            x = x.clone()  # the caller's images are not ours to change
        margins = np.full((len(x), self.columns), -np.inf, dtype=np.float32)
        rows = np.arange(len(x))  # the images that are still on their way
        here: Any = slice(None)  # their rows in the margins; indexing by a slice takes less time
        answers: list[Tensor] = []
        left: list[np.ndarray] = []
        column = self.units
        state: Any = None
        for segment in self.segments:
            if segment.junctions:
                x, asked, state = self._group(segment, x, state)
                margins[here, self.network.routers.columns(segment.junctions)] = asked
            else:
                x = segment.units[0].run(x)
            if segment.exit is not None:
                logits, onwards = ask_exit(segment.exit, x)
                margins[here, column] = onwards
                column += 1
                stop, go = (onwards < 0).nonzero()[0], (onwards >= 0).nonzero()[0]
                answers.append(logits[torch.from_numpy(stop)])
                left.append(rows[stop])
                if len(stop):
                    x, rows = take(x, go), rows[go]
                    here = rows
                    state = None if state is None else tuple(part[torch.from_numpy(go)] for part in state)
                if not len(go):
                    break
        else:
            if self.network.looks_again and len(rows) < len(images):
                images = take(images, rows)
            answers.append(self.network.conclude(x, images))
            left.append(rows)
        if len(answers) == 1:
            return Answer(answers[0], torch.from_numpy(margins).to(x.device))
        order = torch.from_numpy(np.concatenate(left)).to(x.device)
        logits = torch.cat(answers)
        logits = torch.empty_like(logits).index_copy_(0, order, logits)
        return Answer(logits, torch.from_numpy(margins).to(x.device))

    def _group(self, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, np.ndarray, Any]:
        """Take a batch through a group: features in -> features out, margins [B, m], the routers' state."""
        routers, junctions, units = self.network.routers, segment.junctions, segment.units
        width = routers.width
        margins, state = ask_units(routers, junctions, x, state)
        at = 0
        while at < len(units):
            runs = margins[:, at * width :] >= 0
            at += int(runs.any(axis=0).argmax()) // width
            ways = [(margins[:, at * width + sink] >= 0).nonzero()[0] for sink in range(width)]
            rows = ways[0] if width == 1 else np.concatenate(ways)
            if not len(rows):
                break
            x, ran = execute(units[at], x, ways)
            rest = junctions[at + 1 :]
            if rest:
                margins[rows, (at + 1) * width :], _ = ask_units(routers, rest, ran, state)
            at += 1
        else:
            return x, margins, state
        return units[-1].take(x, -1), margins, state


def execute(unit: ResidualUnit, x: Tensor, ways: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Take the images `ways[k]` by sink k of `unit`, at least one in all, and the others by its default.

    Returns the features of all images, and those of the images in `ways`, in that order. Where the default leaves them
    as they are, `x` is changed in place.
    """
    for sink, rows in enumerate(ways):
        if len(rows) == len(x):
            x = unit.take(x, sink)
            return x, x
    made = [(rows, unit.take(take(x, rows), sink)) for sink, rows in enumerate(ways) if len(rows)]
    ran = made[0][1] if len(made) == 1 else torch.cat([features for _, features in made])
    if not unit.keeps:
        others = np.delete(np.arange(len(x)), np.concatenate([rows for rows, _ in made]))
        if len(others):
            made.append((others, unit.take(take(x, others), -1).to(ran.dtype)))
        x = torch.empty_like(ran[:1].expand(len(x), -1, -1, -1))
    for rows, features in made:
        put(x, rows, features)
    return x, ran


def ask_units(routers: RouterBank, junctions: range, x: Tensor, state: Any = None) -> tuple[np.ndarray, Any]:
    """Features [B, C, H, W] -> margins [B, m * width], not negative for the ways that are taken; and the state."""
    survey, state = routers.survey(junctions, x, state)
    # Who runs what is kept in numpy: for arrays as small as these it takes a fraction of torch's time.
    return decided(survey, routers.width).float().cpu().numpy(), state


def ask_exit(leaving: Exit, x: Tensor) -> tuple[Tensor, np.ndarray]:
    """Features [B, C, H, W] -> the exit's logits [B, classes], and by how much each image prefers to go on [B]."""
    logits, scores = leaving(x)
    return logits, (scores[:, GO] - scores[:, STOP]).float().cpu().numpy()


def take(x: Tensor, rows: np.ndarray) -> Tensor:
    """Gather samples of x [B, C, H, W], in its own memory format."""
    chosen = torch.from_numpy(rows).to(x.device)
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
    return x.index_select(0, chosen)


def put(x: Tensor, rows: np.ndarray, values: Tensor) -> None:
    """Put samples back into x [B, C, H, W], in place."""
    x, values = x.permute(0, 2, 3, 1), values.permute(0, 2, 3, 1)
    if x.device.type == "cpu" and x.dtype != torch.bfloat16:
        x.numpy()[rows] = values.numpy()  # torch's index_copy_ takes five times as long
    else:
        x.index_copy_(0, torch.from_numpy(rows).to(x.device), values)


def segments(network: RoutedNetwork) -> list[Segment]:
    """Divide the units of `network` into groups of junctions and units that always run, in order."""
    groups = iter(network.groups)
    found: list[Segment] = []
    left = 0
    for unit in network.view.units:
        if not unit.decides:
            # A dropped unit without a shortcut of its own is not there at all.
            leaving = network.exit_after(unit)
            if not unit.dropped or not unit.keeps or leaving is not None:
                found.append(Segment([unit], range(0), leaving))
                left = 0
            continue
        if not left:
            group = next(groups)
            found.append(Segment([], group))
            left = len(group)
        found[-1].units.append(unit)
        found[-1].exit = network.exit_after(unit)
        left -= 1
    return found
