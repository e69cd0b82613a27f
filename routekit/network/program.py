"""The program of a routed network: a flat list of steps, which everything else interprets.

A pass is what lies between two views of the image. A skip-routed network has one pass. An early exit is
`Classify, Stop` inside a pass. A cascade is `Head, Stop, View, Stem, ...`: the next pass runs another network, another
form of the same network, or the same network on the mirrored image.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.network.deciders import Decider
from routekit.routing.decision import Layout
from routekit.routing.router import RouterBank

# How a head adds to the answer so far: in its place, or as the mean of all heads' logits, or of their probabilities.
Combine = Literal["replace", "mean-logits", "mean"]


@dataclass(eq=False)
class View:
    """How the next steps see the image: as a network of `spec` wants it, and mirrored or not.

    `resolution` is the height and width that it is resized to; None for those of the first view.
    """

    spec: ModelSpec
    mirrored: bool = False
    resolution: tuple[int, int] | None = None


@dataclass(eq=False)
class Stem:
    """The stem of `form`. A `shared` one has run already in this view, for another form: its features are used again.

    `kept` says that a shared one follows (`mark_kept`).
    """

    form: Backbone
    shared: bool = False
    kept: bool = False


@dataclass(eq=False)
class Units:
    """Residual units in a row, whose routers are those of `routers` from junction `first` on.

    `prefix` is put before the units' names where there are several networks.
    """

    form: Backbone
    units: list[ResidualUnit]
    routers: RouterBank | None = None
    first: int = 0
    prefix: str = ""

    @property
    def deciding(self) -> list[ResidualUnit]:
        """The units about which something is decided."""
        return [unit for unit in self.units if unit.decides]

    @property
    def junctions(self) -> range:
        """The places of their junctions in the bank of routers."""
        return range(self.first, self.first + len(self.deciding))

    @property
    def groups(self) -> list[range]:
        """The junctions that see the same features as long as the units before them in the group are skipped.

        One survey scores the rest of a group. A bank that scores one junction at a time has groups of one.
        """
        groups: list[range] = []
        fresh, index = True, self.first
        for unit in self.units:
            if unit.decides:
                assert self.routers is not None
                if fresh or not self.routers.surveys:
                    groups.append(range(index, index))
                groups[-1] = range(groups[-1].start, index + 1)
                fresh, index = False, index + 1
            fresh = fresh or not unit.keeps
        return groups


@dataclass(eq=False)
class Classify:
    """An exit's classifier along the way: its logits are the answer so far. `name` is that of the unit before it."""

    head: nn.Module
    name: str


@dataclass(eq=False)
class Stop:
    """Is the answer so far good enough? Who stops leaves the batch. `name` says what the image goes on past."""

    decider: Decider
    name: str


@dataclass(eq=False)
class Head:
    """The head of `form`, which adds to the answer."""

    form: Backbone
    combine: Combine = "replace"


Step = View | Stem | Units | Classify | Stop | Head
KINDS: tuple[type, ...] = (View, Stem, Units, Classify, Stop, Head)

S = TypeVar("S")


class Interpreter(Generic[S]):
    """A table from the kinds of steps to the functions that interpret them.

    >>> forward = Interpreter("forward")
    >>> @forward.on(Head)
    ... def _(step: Head, state: ForwardState) -> None: ...
    """

    every: ClassVar[list["Interpreter[Any]"]] = []

    def __init__(self, name: str) -> None:
        self.name = name
        self.table: dict[type, Callable[[Any, S], None]] = {}
        Interpreter.every.append(self)

    def on(self, *kinds: type) -> Callable[[Callable[[Any, S], None]], Callable[[Any, S], None]]:
        """Register the decorated function for these kinds of steps."""

        def enter(function: Callable[[Any, S], None]) -> Callable[[Any, S], None]:
            self.table.update(dict.fromkeys(kinds, function))
            return function

        return enter

    def __call__(self, steps: Sequence[Step], state: S) -> S:
        """Interpret `steps` in order; returns the state."""
        for step in steps:
            self.table[type(step)](step, state)
        return state


def layout_of(steps: Sequence[Step]) -> Layout:
    """Say what the columns of a route are."""
    sections: list[int] = []
    stops: list[int] = []
    widths: list[int] = []
    forks = False
    for step in steps:
        if isinstance(step, Stop):
            sections.append(len(stops))
            stops.append(len(sections) - 1)
            widths.append(1)
        elif isinstance(step, Units) and step.routers is not None:
            width, count = step.routers.width, len(step.deciding)
            sections += [len(stops)] * (width * count)
            widths += [width] * count
            forks = forks or (step.routers.forks and count > 0)
    return Layout(tuple(sections), tuple(stops), tuple(widths), forks)


def columns_of(steps: Sequence[Step]) -> list[str]:
    """Name the columns of a route: whether these units run, and whether an image goes on past a stop."""
    names: list[str] = []
    for step in steps:
        if isinstance(step, Stop):
            names.append(f"past {step.name}")
        elif isinstance(step, Units):
            forks = step.routers is not None and step.routers.forks
            for unit in step.deciding:
                own = [unit.name if sink == 0 else f"{unit.name} branch {sink}" for sink in range(len(unit.sinks) - 1)]
                names += [f"first sink at {name}" if forks else f"{step.prefix}{name}" for name in own]
    return names


def passes_of(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Divide a program into its passes: each begins with a stem."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Stem) and any(isinstance(each, Stem) for each in found):
            # A view belongs to the pass that it is for.
            ahead = [found.pop()] if isinstance(found[-1], View) else []
            yield found
            found = ahead
        found.append(step)
    yield found


def mark_kept(steps: Sequence[Step]) -> None:
    """Say of each stem whether a shared one follows in its view, so that its features have to be kept."""
    for place, step in enumerate(steps):
        if isinstance(step, Stem):
            behind = itertools.takewhile(lambda each: not isinstance(each, View), steps[place + 1 :])
            step.kept = not step.shared and any(isinstance(each, Stem) and each.shared for each in behind)


def forms_of(steps: Sequence[Step]) -> list[Backbone]:
    """The networks, and forms of networks, that a program runs, each once, in order."""
    found: list[Backbone] = []
    for step in steps:
        if isinstance(step, Stem | Units | Head) and all(step.form.model is not form.model for form in found):
            found.append(step.form)
    return found


def by_position(steps: Sequence[Step]) -> bool:
    """Whether positions of features decide for themselves, beside images."""
    return any(isinstance(step, Units) and step.routers is not None and step.routers.by_position for step in steps)


def margins_tell(steps: Sequence[Step]) -> bool:
    """Whether the margins of one evaluation say what images do at other biases."""
    return all(step.routers.margins_tell for step in steps if isinstance(step, Units) and step.routers is not None)


def units_run(steps: Sequence[Step], routes: Tensor) -> Tensor:
    """Count the units that routes execute. Of a fork, one path is counted.

    Args:
        steps: The program.
        routes: `[B, columns]`, bool.

    Returns:
        `[B]`, int64.
    """
    layout, section = layout_of(steps), 0
    always = torch.zeros(len(layout.stops) + 1, dtype=torch.float64)
    for step in steps:
        if isinstance(step, Stop):
            section += 1
        elif isinstance(step, Units):
            decided = 0 if layout.forks else len(step.deciding)
            always[section] += sum(unit.computes and not unit.dropped for unit in step.units) - decided
    routes = layout.strike(routes.cpu())
    chosen = 0 if layout.forks else routes[:, layout.of_units].sum(dim=1)
    there: Tensor = (layout.reach(routes.double()) @ always).long()
    return there + chosen
