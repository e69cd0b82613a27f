"""What a decision is, and the trace of all decisions that a batch took through a network."""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The sinks of a unit's junction, the dearest first. Sink 0 runs the unit in full, as in Eq. 3 of Wang et al. ("0-based
# indexing"). The last sink is the default: it skips the unit, or takes the cheapest of its branches.
RUN, SKIP = 0, -1
# The sinks of a stop. Here, too, the dearer one comes first.
GO, STOP = RUN, SKIP


def decided(margins: Tensor, width: int) -> Tensor:
    """Set to -inf the margins of the sinks that lost to another sink of the same junction.

    A junction takes the sink whose margin is not negative. A margin is negative if its sink lost to the default.

    Args:
        margins: `[B, n * width]`, of n junctions over their defaults.
        width: The number of sinks beside the default.

    Returns:
        `[B, n * width]`, with at most one margin of each junction that is not negative.
    """
    if width == 1:
        return margins
    sinks = margins.reshape(margins.shape[0], -1, width)
    best = sinks.argmax(dim=2, keepdim=True) == torch.arange(width, device=margins.device)
    return sinks.masked_fill(~best & (sinks >= 0), -torch.inf).flatten(1)


@dataclass(frozen=True)
class Layout:
    """What the columns of a route are, in the order of the program.

    A junction with K sinks has K - 1 columns, one for each sink but the default. A stop has one column: the image goes
    on. Stops divide a program into sections. What lies behind a stop is reached by the images that go on there.

    Attributes:
        sections: Of each column, the section that it lies in. A stop lies in the section that it ends.
        stops: The columns that are stops, in order: stop s ends section s.
        widths: Of each junction and stop, in order, the number of its columns.
        forks: Whether the junctions are forks, of which a route takes the first sink or the second.
    """

    sections: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    forks: bool = False

    @property
    def junctions(self) -> tuple[slice, ...]:
        """The columns of each junction and stop, in order."""
        return tuple(slice(*ends) for ends in itertools.pairwise(itertools.accumulate(self.widths, initial=0)))

    @property
    def is_stop(self) -> tuple[bool, ...]:
        """Of each junction and stop, in order, whether it is a stop."""
        return tuple(columns.start in self.stops for columns in self.junctions)

    @property
    def partings(self) -> list[bool]:
        """Of each stop, and of each fork, in order, whether it is a fork."""
        return [not stops for stops in self.is_stop if stops or self.forks]

    @property
    def of_units(self) -> list[int]:
        """The columns that are decided at units."""
        return [column for column in range(len(self.sections)) if column not in self.stops]

    @property
    def paths(self) -> int:
        """The number of paths that never meet again."""
        return 2 ** len(self.of_units) if self.forks else 1

    def every_path(self, count: int) -> Tensor:
        """Return routes `[paths * count, columns]` that send `count` images to the end of each path in turn."""
        at = self.of_units
        bits = torch.arange(self.paths).unsqueeze(1) >> torch.arange(len(at)).flip(0)
        routes = torch.ones(self.paths, len(self.sections), dtype=torch.bool)
        routes[:, at] = bits % 2 == 0
        return routes.repeat_interleave(count, dim=0)

    def decided(self, margins: Tensor) -> Tensor:
        """Margins `[B, columns]` -> those with -inf for each sink that lost to another of its junction: `decided`."""
        if all(width == 1 for width in self.widths):
            return margins
        parts = [
            decided(margins[:, columns], width) for columns, width in zip(self.junctions, self.widths, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def choose(self, margins: Tensor) -> Tensor:
        """Margins `[B, columns]` over the defaults -> routes `[B, columns]`, bool: the best sink of each junction."""
        return self.decided(margins) >= 0

    def reach(self, gates: Tensor) -> Tensor:
        """Gates `[B, columns]` -> `[B, sections]`, the share of each image that reaches each section."""
        onwards = gates[:, list(self.stops)]
        return torch.cat([gates.new_ones(gates.shape[0], 1), onwards], dim=1).cumprod(dim=1)

    def strike(self, routes: Tensor) -> Tensor:
        """Routes `[B, columns]`, bool -> the same without what lies behind a stop that is taken."""
        return routes & self.met(routes)

    def met(self, routes: Tensor) -> Tensor:
        """Routes `[B, columns]`, bool -> `[B, columns]`, bool: which decisions each image reaches."""
        return self.reach(routes.float())[:, list(self.sections)] > 0


@dataclass(frozen=True)
class Decision:
    """What a batch decided at one junction with K sinks.

    Attributes:
        logits: `[B, K]`, the router's scores.
        weights: `[B, K]`, the share of each sink in the forward pass, the r_i of Eq. 3. They are differentiable in
            training, and one-hot under hard routing.
        choice: `[B]`, int64, the sink that inference takes: the largest logit (Eq. 11).
        positions: `[B, H, W]`, where each position of the features decides for itself, too: it goes on where this is
            not negative. None where all positions do what the image does.
        halo: The share of a unit's work that is needed at neighbours of such positions, too: what its last 3x3
            convolution reads.
    """

    logits: Tensor
    weights: Tensor
    choice: Tensor
    positions: Tensor | None = None
    halo: float = 0.0

    @property
    def chosen(self) -> Tensor:
        """`[B, K - 1]`, bool: the columns of the route."""
        sinks = torch.arange(self.logits.shape[1] - 1, device=self.choice.device)
        return self.choice.unsqueeze(1) == sinks

    @property
    def computed(self) -> Tensor:
        """`[B, K - 1]`, the share of positions at which each sink was computed: 0 or 1 if they do not decide."""
        ran = (self.weights[:, :SKIP] > 0.5).to(self.weights)
        if self.positions is None:
            return ran
        own = (self.positions >= 0).to(ran).unsqueeze(1)
        near = F.max_pool2d(own, kernel_size=3, stride=1, padding=1)
        return ran * (self.halo * near + (1 - self.halo) * own).mean(dim=(2, 3))


@dataclass(frozen=True)
class RouteTrace:
    """The decisions of a batch. Cost, objective, evaluation and reports read nothing else.

    Attributes:
        logits: `[B, classes]`, the network's answer.
        decisions: One for each junction and stop, in the order of the program.
        layout: What the columns are.
        leaves: `[B, classes]` each: the answer so far at each stop, in order, and the last answer. Empty if images
            exited on the way.
        features: Of each pass, `[B, C, H, W]` after each of its stages. Empty unless they were kept.
    """

    logits: Tensor
    decisions: tuple[Decision, ...]
    layout: Layout
    leaves: tuple[Tensor, ...] = ()
    features: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def stops(self) -> tuple[Decision, ...]:
        """The decisions whether to stop, in order."""
        return tuple(itertools.compress(self.decisions, self.layout.is_stop))

    @property
    def at_units(self) -> tuple[Decision, ...]:
        """The decisions that were taken at units, in order."""
        return tuple(d for d, stops in zip(self.decisions, self.layout.is_stop, strict=True) if not stops)

    @property
    def gates(self) -> Tensor:
        """`[B, columns]`, the routing variables r_i (Eq. 3), in [0, 1]; differentiable in training."""
        return self._stack([d.weights[:, :SKIP] for d in self.decisions])

    @property
    def routes(self) -> Tensor:
        """`[B, columns]`, bool: the sinks that inference takes (Eq. 11), and the stops that it passes."""
        return self.layout.strike(self._stack([d.chosen for d in self.decisions]).bool())

    @property
    def ran(self) -> Tensor:
        """`[B, columns]`, bool: what the gate ran. It differs from `routes` if the gate samples."""
        return self.layout.strike(self.gates > 0.5)

    @property
    def computed(self) -> Tensor:
        """`[B, columns]`, in [0, 1]: at which share of the positions of its features each column of `ran` was computed.

        It is 0 or 1, unless positions decide for themselves. Costs are counted by it.
        """
        return self.ran * self._stack([d.computed for d in self.decisions])

    @property
    def margins(self) -> Tensor:
        """`[B, columns]`, how much each sink is preferred to the default."""
        return self._stack([d.logits[:, :SKIP] - d.logits[:, SKIP:] for d in self.decisions])

    def _stack(self, columns: list[Tensor]) -> Tensor:
        return torch.cat(columns, dim=1) if columns else self.logits.new_zeros(len(self.logits), 0)
