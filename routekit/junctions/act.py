"""Adaptive computation time: the units of a stage run until their halting scores add up to one (Graves, 2016).

In a residual network, each stage halts on its own (Figurnov et al., "Spatially Adaptive Computation Time for Residual
Networks", 2017, section 3.1). What leaves a stage is the mean of what its units made, weighted by their scores. In its
spatial form, each position of the features halts on its own (section 3.2).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.backbones.unit import Sink
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterBank, pool

# A stage halts where the scores reach 1 less this. Each score begins as sigmoid(BEGIN), so that nearly all units run
# (Figurnov et al., section 4.1).
EPSILON, BEGIN = 0.01, -3.0


class HaltingUnit(nn.Module):
    """A block of a stage that halts, and its halting score h = sigmoid(w norm(pool(x)) + b).

    By position, the score is a map: the logit is that of a 3x3 convolution and that of the whole image together. A
    position that has halted keeps its features: what a block makes there is not used.

    Between the units of a stage, features carry what the stage needs: `[B, 2 C + 1, H, W]` are what the last unit made,
    the weighted mean so far, and the sum of the scores so far, which is 1 where the stage has halted.

    Args:
        block: The block.
        channels: C, of what it makes.
        first: Whether it is the first one of its stage, which reads plain features.
        last: Whether it is the last one, which makes plain features.
        by_position: Whether each position halts on its own.
        normalize: Whether a batch norm comes before each layer that scores.

    Attributes:
        steered: The routers, and the junction behind it, whose bias lowers the logit of the score: a budget is met by
            it without training.
    """

    steered: tuple["HaltingRouters", int] | None = None

    def __init__(
        self, block: nn.Module, channels: int, *, first: bool, last: bool, by_position: bool, normalize: bool
    ) -> None:
        super().__init__()
        self.block, self.channels, self.first, self.by_position = block, channels, first, by_position
        self.score: nn.Module | None = None
        self.local: nn.Module | None = None
        if last:
            return
        linear = nn.Linear(channels, 1)
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, BEGIN)
        self.score = nn.Sequential(nn.BatchNorm1d(channels), linear) if normalize else linear
        if by_position:
            conv = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
            nn.init.zeros_(conv.weight)
            self.local = nn.Sequential(nn.BatchNorm2d(channels), conv) if normalize else conv

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, and add what it made to the mean."""
        channels = self.channels
        made: Tensor = self.block(x if self.first else x[:, :channels])
        mean, spent = torch.zeros_like(made), made.new_zeros(len(x), 1, 1, 1, dtype=torch.float32)
        if not self.first:
            mean, spent = x[:, channels:-1], x[:, -1:] if self.by_position else x[:, -1:, :1, :1]
        if self.by_position and not self.first:
            made = torch.where(spent < 1 - EPSILON, made, x[:, :channels].to(made))
        if self.score is None:
            return mean + (1 - spent) * made
        logit = self.score(pool(made)).view(-1, 1, 1, 1)
        logit = (logit if self.local is None else logit + self.local(made)).float()
        score = torch.sigmoid(logit if self.steered is None else logit - self.steered[0].bias[self.steered[1]])
        halts = spent + score >= 1 - EPSILON
        # The last unit that runs gets what remains.
        share = torch.where(halts, 1 - spent, score)
        spent = torch.where(halts, torch.ones_like(spent), spent + score)
        return torch.cat([made, mean + share * made, spent.expand(-1, 1, *made.shape[2:])], dim=1)


def leave_stage(x: Tensor) -> Tensor:
    """What leaves a stage whose last unit is skipped: the mean `[B, C, H, W]` of what ran."""
    channels = (x.shape[1] - 1) // 2
    # The scores add up to 1, unless a route was given that stops earlier, perhaps before anything was scored.
    return x[:, channels:-1] / x[:, -1:].clamp_min(torch.finfo(x.dtype).tiny)


class HaltingRouters(RouterBank):
    """Goes on in a stage as long as its scores are under 1 - epsilon, somewhere. It has no weights: the units have.

    Attributes:
        stages: The junctions of each stage, all its units but the first.
        halos: Where positions halt, of each junction's unit the share of its work that is needed at neighbours, too.
    """

    margins_tell = False

    def __init__(self, stages: Sequence[range], halos: Sequence[float] | None) -> None:
        super().__init__(sum(map(len, stages)))
        self.stages, self.halos = tuple(stages), halos
        self.by_position = halos is not None

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score a junction by the scores so far, on which the bias has acted already."""
        del prices
        left = (1 - EPSILON - features[:, -1]).amax(dim=(1, 2)) - self.bias[index]
        return torch.stack([left, torch.zeros_like(left)], dim=1), state

    def positions(self, index: int, features: Tensor) -> tuple[Tensor, float] | None:
        """Positions go on by their own scores so far."""
        return None if self.halos is None else (1 - EPSILON - features[:, -1].float(), self.halos[index])


def halo_of(block: nn.Module) -> float:
    """The share of a block's multiply-adds that its last convolution over positions reads: it needs their neighbours.

    Of two 3x3 convolutions, the first is computed where the second one looks, as in the authors' count.
    """
    convs = [part for part in block.modules() if isinstance(part, nn.Conv2d)]
    work = [conv.weight.numel() for conv in convs]
    wide = [place for place, conv in enumerate(convs) if max(conv.kernel_size) > 1]
    return sum(work[: wide[-1]]) / sum(work) if wide else 0.0


@junctions.register("act")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Act(Junction):
    """Each stage runs its units until their halting scores add up to one, image by image (ACT, Graves, 2016).

    Attributes:
        normalize: Whether scores are of standardised features, as in the code of Figurnov et al.
    """

    normalize: bool = True

    about: ClassVar[str] = "after how many units each stage halts"
    cheapest: ClassVar[str] = "every stage halted after its first unit"
    halts: ClassVar[bool] = True
    by_position: ClassVar[bool] = False
    former: ClassVar[Mapping[str, Any]] = {"normalize": False}

    def check(self, others: Sequence[Junction]) -> None:
        """Raise InputError if anything else is decided, too."""
        if len(others) > 1:
            raise InputError(f"junctions={self.kind} goes alone: what leaves a stage is a mean of what its units make")

    def attach(self, draft: Draft) -> None:
        """Let each stage of several units halt. Raises InputError where there is none."""
        view, stages, first = draft.view, list[range](), 0
        if draft.priced or view.pruned:
            raise InputError(f"junctions={self.kind} is for whole networks, without adaptive_cost")
        channels = {place.after: place.channels for place in draft.places}
        for _, group in itertools.groupby(view.units, key=lambda unit: unit.stage):
            units = [unit for unit in group if unit.computes and not unit.dropped]
            # A unit that changes the shape of features can only be the first one of a stage.
            if len(units) < 2 or any(not unit.skippable or unit.shortcut is not None for unit in units[1:]):
                continue
            for unit in units:
                width = channels[unit.name]
                ends = {"first": unit is units[0], "last": unit is units[-1]}
                how = {"by_position": self.by_position, "normalize": self.normalize}
                unit.block = HaltingUnit(unit.block, width, **ends, **how)
                view.model.set_submodule(unit.name, unit.block)
                if unit is not units[0]:
                    unit.sinks = (Sink.RUN, Sink.SKIP)
            units[-1].shortcut = leave_stage
            stages.append(range(first, first + len(units) - 1))
            first += len(units) - 1
        if not stages:
            raise InputError(f"{view.spec.full_name} has no stage of several units with plain shortcuts")
        blocks = [
            unit.block.block for unit in view.units if isinstance(unit.block, HaltingUnit) and not unit.block.first
        ]
        bank = draft.bank = HaltingRouters(stages, [halo_of(each) for each in blocks] if self.by_position else None)
        scoring = [unit.block for unit in view.units if isinstance(unit.block, HaltingUnit) and unit.block.score]
        for junction, block in enumerate(scoring):
            block.steered = (bank, junction)


@junctions.register("sact")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Sact(Act):
    """As `Act`, at each position of the features (SACT, Figurnov et al., 2017, section 3.2).

    Its cost is that of the positions that are computed: of those that go on, and for convolutions before a unit's last
    3x3 one, of their neighbours. Dense kernels compute all positions, wherever one goes on: so it saves no time here,
    and other runtimes do not take it.
    """

    about: ClassVar[str] = "after how many units each position of a stage halts"
    by_position: ClassVar[bool] = True


def stages_of(network: RoutedNetwork) -> tuple[range, ...]:
    """The junctions of each stage that halts by scores; none in other networks."""
    return tuple(stage for bank in network.banks if isinstance(bank, HaltingRouters) for stage in bank.stages)
