"""The sparse executor: inference that computes, for each image, only what its route runs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from routekit.backbones.unit import ResidualUnit
from routekit.backbones.walk import run_all
from routekit.execution.rows import execute, take
from routekit.network.forward import combined, seen
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Combine, Head, Interpreter, Stem, Stop, Units, View
from routekit.routing.decision import decided
from routekit.routing.router import RouterBank


@dataclass(frozen=True)
class Answer:
    """What a batch got.

    Attributes:
        logits: `[B, classes]`, float32.
        margins: `[B, columns]`, how much each sink was preferred to the default. A sink is taken where this is not
            negative. It is -inf behind a stop that was taken, and for sinks of a unit that lost to another.
        computed: `[B, columns]`, as in `RouteTrace`, where positions of features decide. None elsewhere.
    """

    logits: Tensor
    margins: Tensor
    computed: Tensor | None = None

    @property
    def routes(self) -> Tensor:
        """`[B, columns]`, bool: the units that ran, and the stops that were passed."""
        return self.margins >= 0


@dataclass
class Segment:
    """Units in a row.

    They are a group of junctions, which see the same features while they are skipped, or units that always run:
    `junctions` is empty then. Only the last unit of a group can compute something by default.
    """

    units: list[ResidualUnit]
    junctions: range


@dataclass
class _Run:
    """A batch on its way: see `ForwardState`, of which this is the fast form for inference.

    Attributes:
        masked: Whether all sinks of a unit are computed, and of each image the one is kept that it takes.
        rows: The images that are still in the batch.
        here: Their rows in the margins. Indexing by a slice takes less time.
    """

    images: Tensor
    network: RoutedNetwork
    segments: list[list[Segment]]
    masked: bool
    margins: np.ndarray
    rows: np.ndarray
    here: Any = field(default_factory=lambda: slice(None))
    x: Tensor = field(init=False)
    view: Tensor = field(init=False)
    shared: Tensor | None = None
    answer: Tensor | None = None
    heads: int = 0
    column: int = 0
    memory: Any = None
    place: int = 0
    answers: list[Tensor] = field(default_factory=list)
    exited: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = self.view = self.images

    def leave(self, rows: np.ndarray, answer: Tensor) -> None:
        """Note the answer of images that are done."""
        self.answers.append(answer)
        self.exited.append(rows)


class SparseExecutor(nn.Module):
    """Executes `network` in eval mode: what is skipped is not computed, for one image or a batch of any size.

    Where the images of a batch disagree, those that run a unit are gathered, computed and put back. Routers are asked
    once per group of junctions, and again, only for the images that ran it, after each unit that ran: a skipped unit
    leaves the features as they are, so the last survey holds. An image that stops leaves the batch. `CostTable` charges
    exactly this.
    """

    masked = False

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network.eval()
        self.segments = [segments(step) if isinstance(step, Units) else [] for step in network.steps]
        self.columns = len(network.columns)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Answer:
        """Images `[B, C, H, W]`, normalised as for the first pass -> their logits and margins."""
        margins = np.full((len(x), self.columns), -np.inf, dtype=np.float32)
        run = _Run(x, self.network, self.segments, self.masked, margins, np.arange(len(x)))
        for run.place, step in enumerate(self.network.steps):
            run_sparse.table[type(step)](step, run)
            if not len(run.rows):
                break
        else:
            assert run.answer is not None
            run.leave(run.rows, run.answer)
        found = torch.from_numpy(margins).to(x.device)
        if len(run.answers) == 1:
            return Answer(run.answers[0], found)
        order = torch.from_numpy(np.concatenate(run.exited)).to(x.device)
        logits = torch.cat(run.answers)
        return Answer(torch.empty_like(logits).index_copy_(0, order, logits), found)


class MaskedExecutor(SparseExecutor):
    """Gives the sparse executor's answers, but computes all sinks of a unit and keeps the one that an image takes.

    Where units are so small that gathering costs more than computing, it is the faster of the two. It does not execute
    what `CostTable` charges.
    """

    masked = True


run_sparse: Interpreter[_Run] = Interpreter("sparse executor")


@run_sparse.on(View)
def _view(step: View, run: _Run) -> None:
    images = run.images if len(run.rows) == len(run.images) else take(run.images, run.rows)
    run.view = seen(images, run.network.spec, step)


@run_sparse.on(Stem)
def _stem(step: Stem, run: _Run) -> None:
    run.memory = None
    if step.shared:
        assert run.shared is not None
        run.x = run.shared
        return
    x = step.form.stem(run.view)
    if x.untyped_storage().data_ptr() == run.view.untyped_storage().data_ptr():
        x = x.clone()  # the caller's images are not ours to change
    # Units may change their features in place.
    run.x, run.shared = x, x.clone() if step.kept and run.network.junctions else x


@run_sparse.on(Units)
def _units(step: Units, run: _Run) -> None:
    if step.routers is not None and step.routers.sees_image and step.first == 0:
        run.memory = step.routers.begin(run.view)
    for segment in run.segments[run.place]:
        if not segment.junctions:
            run.x = run_all(segment.units, run.x)
            continue
        assert step.routers is not None
        group = _masked_group if run.masked else _sparse_group
        run.x, margins, run.memory = group(step.routers, segment, run.x, run.memory)
        run.margins[run.here, run.column : run.column + margins.shape[1]] = margins
        run.column += margins.shape[1]


@run_sparse.on(Classify)
def _classify(step: Classify, run: _Run) -> None:
    _answer(run, step.head(run.x), "replace")


@run_sparse.on(Head)
def _head(step: Head, run: _Run) -> None:
    _answer(run, step.form.head(run.x), step.combine)


@run_sparse.on(Stop)
def _stop(step: Stop, run: _Run) -> None:
    assert run.answer is not None
    onwards = step.decider.margin(run.x, run.answer).float().cpu().numpy()
    run.margins[run.here, run.column] = onwards
    run.column += 1
    stop, go = (onwards < 0).nonzero()[0], (onwards >= 0).nonzero()[0]
    if not len(stop):
        return
    run.leave(run.rows[stop], run.answer[torch.from_numpy(stop)])
    on = torch.from_numpy(go)
    run.rows = run.here = run.rows[go]
    run.x, run.view, run.answer = take(run.x, go), take(run.view, go), run.answer[on]
    run.shared = None if run.shared is None else take(run.shared, go)
    run.memory = None if run.memory is None else tuple(part[on] for part in run.memory)


def _answer(run: _Run, logits: Tensor, combine: Combine) -> None:
    run.answer, run.heads = combined(run.answer, run.heads, logits.float(), combine)


def _sparse_group(routers: RouterBank, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, np.ndarray, Any]:
    """Take a batch through a group: features in -> features out, margins `[B, m]`, the routers' state."""
    junctions, units, width = segment.junctions, segment.units, routers.width
    margins, state = ask_units(routers, junctions, x, state)
    at = 0
    while at < len(units):
        runs = margins[:, at * width :] >= 0
        at += int(runs.any(axis=0).argmax()) // width
        sinks = [(margins[:, at * width + sink] >= 0).nonzero()[0] for sink in range(width)]
        rows = sinks[0] if width == 1 else np.concatenate(sinks)
        if not len(rows):
            break
        x, ran = execute(units[at], x, sinks)
        rest = junctions[at + 1 :]
        if rest and not routers.sees_image:
            margins[rows, (at + 1) * width :], _ = ask_units(routers, rest, ran, state)
        at += 1
    else:
        return x, margins, state
    return units[-1].take(x, -1), margins, state


def _masked_group(routers: RouterBank, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, np.ndarray, Any]:
    """Do as `_sparse_group` does, but compute all sinks of each unit."""
    margins = []
    for junction, unit in zip(segment.junctions, segment.units, strict=True):
        asked, state = ask_units(routers, range(junction, junction + 1), x, state)
        margins.append(asked)
        takes = torch.from_numpy(asked >= 0).to(x.device)
        out = unit.take(x, -1)
        for sink in range(routers.width):
            made = unit.take(x, sink)
            out = torch.where(takes[:, sink].view(-1, 1, 1, 1), made, out.to(made.dtype))
        x = out
    return x, np.concatenate(margins, axis=1), state


def ask_units(routers: RouterBank, junctions: range, x: Tensor, state: Any = None) -> tuple[np.ndarray, Any]:
    """Ask the routers of some junctions.

    Args:
        routers: The bank.
        junctions: The places of the junctions in it, m of them.
        x: Features `[B, C, H, W]`.
        state: The state of the routers, where they have one.

    Returns:
        The margins `[B, m * width]`, which are not negative for the sinks taken, and the next state.
    """
    survey, state = routers.survey(junctions, x, state)
    # Who runs what is kept in numpy: for arrays as small as these it takes a fraction of torch's time.
    return decided(survey, routers.width).float().cpu().numpy(), state


def segments(step: Units) -> list[Segment]:
    """Divide units into groups of junctions and units that always run, in order."""
    groups = iter(step.groups)
    found: list[Segment] = []
    ahead = 0
    for unit in step.units:
        if unit.decides:
            if not ahead:
                group = next(groups)
                found.append(Segment([], group))
                ahead = len(group)
            found[-1].units.append(unit)
            ahead -= 1
        # A dropped unit without a shortcut of its own is not there at all.
        elif not unit.dropped or not unit.keeps:
            if not found or found[-1].junctions:
                found.append(Segment([], range(0)))
            found[-1].units.append(unit)
            ahead = 0
    return found
