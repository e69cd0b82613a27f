"""What a decision is, and the trace of all decisions that a batch took through a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

# The sinks of a unit's junction, the dearest first: running it in full is sink 0, as in Eq. 3 of Wang et al. ("0-based
# indexing"), what it does by default is the last one: skipping it, or the cheapest of its branches.
RUN, SKIP = 0, -1
# The sinks of an exit junction: what computes comes first, here as well.
GO, STOP = RUN, SKIP


def decided(margins: Tensor, width: int) -> Tensor:
    """Margins [B, n * width] of units over their defaults, with -inf for ways that lost to another of their unit.

    What lost to the default is negative anyway: a unit takes the way whose margin is not.
    """
    if width == 1:
        return margins
    ways = margins.reshape(margins.shape[0], -1, width)
    best = ways.argmax(dim=2, keepdim=True) == torch.arange(width, device=margins.device)
    return ways.masked_fill(~best & (ways >= 0), -torch.inf).flatten(1)


@dataclass(frozen=True)
class Layout:
    """What the columns of a route are: first the units (does it run?), then the exits (does the image go on past it?).

    A junction with K sinks has K - 1 columns, one for each but the default, and a route at most one of them. Exits
    divide a network into sections: what lies behind an exit is reached by the images that go on there.

    sections:  [columns] for each unit's column, in which section it lies
    exits:     how many exits there are
    width:     how many columns each unit has
    is_tree:   whether the units' junctions are forks, of which a route takes the first way or the second
    """

    sections: tuple[int, ...]
    exits: int = 0
    width: int = 1
    is_tree: bool = False

    @property
    def paths(self) -> int:
        """How many paths there are that do not meet again."""
        return 2 ** len(self.sections) if self.is_tree else 1

    def every_path(self, count: int) -> Tensor:
        """Routes [paths * count, columns] bool that take `count` images down each path in turn, to its end."""
        bits = torch.arange(self.paths).unsqueeze(1) >> torch.arange(len(self.sections)).flip(0)
        ways = torch.cat([bits % 2 == 0, torch.ones(self.paths, self.exits, dtype=torch.bool)], dim=1)
        return ways.repeat_interleave(count, dim=0)

    @property
    def junctions(self) -> int:
        """How many units there is something to decide about."""
        return len(self.sections) // self.width

    def decided(self, margins: Tensor) -> Tensor:
        """Margins [B, columns] over the defaults, so that what is not negative is taken: see `decided`."""
        units = len(self.sections)
        return torch.cat([decided(margins[:, :units], self.width), margins[:, units:]], dim=1)

    def choose(self, margins: Tensor) -> Tensor:
        """Margins [B, columns] over the defaults -> routes bool: of each junction, the best that is not negative."""
        return self.decided(margins) >= 0

    def reach(self, gates: Tensor) -> Tensor:
        """Gates [B, units + exits] -> [B, exits + 1] the share of each image that gets to each section."""
        onwards = gates[:, len(self.sections) :]
        return torch.cat([gates.new_ones(gates.shape[0], 1), onwards], dim=1).cumprod(dim=1)

    def strike(self, routes: Tensor) -> Tensor:
        """Strike from routes [B, units + exits] bool, decided everywhere, what lies behind an exit that is taken."""
        return routes & self.met(routes)

    def met(self, routes: Tensor) -> Tensor:
        """Say which decisions an image comes to at all: [B, units + exits] bool."""
        return self.reach(routes.float())[:, [*self.sections, *range(self.exits)]] > 0


@dataclass(frozen=True)
class Decision:
    """What a batch decided at one junction with K sinks.

    logits:   [B, K] the router's scores
    weights:  [B, K] the share of each sink in the forward pass, the r_i of Eq. 3; differentiable in training,
              one-hot under hard routing
    choice:   [B] int64, the sink that inference takes: the largest logit (Eq. 11)
    """

    logits: Tensor
    weights: Tensor
    choice: Tensor

    @property
    def chosen(self) -> Tensor:
        """[B, K - 1] bool: the columns of the route."""
        sinks = torch.arange(self.logits.shape[1] - 1, device=self.choice.device)
        return self.choice.unsqueeze(1) == sinks


@dataclass(frozen=True)
class RouteTrace:
    """The routes of a batch: the only thing that cost, objective, evaluation and reports read.

    logits:     [B, classes] the network's answer
    decisions:  one Decision per column
    layout:     what the columns are; None where nothing but units decides
    leaves:     [B, classes] each, what all images are told at each exit, in order, and last by the network's own
                classifier; empty where images left on the way
    features:   [B, C, H, W] each, what left the last unit of each stage; empty unless they were asked for
    hints:      the same inside the exits that have stages of their own
    """

    logits: Tensor
    decisions: tuple[Decision, ...]
    layout: Layout | None = None
    leaves: tuple[Tensor, ...] = ()
    features: tuple[Tensor, ...] = ()
    hints: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def ends(self) -> tuple[Decision, ...]:
        """The decisions of the exits."""
        return () if self.layout is None else self.decisions[self.layout.junctions :]

    @property
    def gates(self) -> Tensor:
        """[B, n] how much of each unit ran, the routing variables r_i (Eq. 3); differentiable in training."""
        return self._stack([d.weights[:, :SKIP] for d in self.decisions])

    @property
    def routes(self) -> Tensor:
        """[B, n] bool: the units that inference runs (Eq. 11), and the exits that it passes."""
        return self._struck(self._stack([d.chosen for d in self.decisions]).bool())

    @property
    def ran(self) -> Tensor:
        """[B, n] bool: what the gate had run, which departs from `routes` where it samples."""
        return self._struck(self.gates > 0.5)

    @property
    def margins(self) -> Tensor:
        """[B, n] by how much each router prefers to run its unit, or to go on, to what is done by default."""
        return self._stack([d.logits[:, :SKIP] - d.logits[:, SKIP:] for d in self.decisions])

    def _struck(self, chosen: Tensor) -> Tensor:
        return chosen if self.layout is None else self.layout.strike(chosen)

    def _stack(self, columns: list[Tensor]) -> Tensor:
        return torch.cat(columns, dim=1) if columns else self.logits.new_zeros(len(self.logits), 0)
