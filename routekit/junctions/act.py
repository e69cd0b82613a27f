"""Adaptive computation time: the units of a stage run until their halting scores add up to one (Graves, 2016).

In a residual network, each stage halts on its own (Figurnov et al., "Spatially Adaptive Computation Time for Residual
Networks", 2017, section 3.1). What leaves a stage is the mean of what its units made, weighted by their scores.
"""

import itertools
from collections.abc import Sequence
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
    """A block of a stage that halts, and its halting score h = sigmoid(w pool(x) + b).

    Between the units of a stage, features carry what the stage needs: `[B, 2 C + 1, H, W]` are what the last unit made,
    the weighted mean so far, and the sum of the scores so far, which is 1 where the stage has halted.

    Args:
        block: The block.
        channels: C, of what it makes.
        first: Whether it is the first one of its stage, which reads plain features.
        last: Whether it is the last one, which makes plain features.
    """

    def __init__(self, block: nn.Module, channels: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.block, self.channels, self.first = block, channels, first
        self.score = None if last else nn.Linear(channels, 1)
        if self.score is not None:
            nn.init.zeros_(self.score.weight)
            nn.init.constant_(self.score.bias, BEGIN)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, and add what it made to the mean."""
        channels = self.channels
        made: Tensor = self.block(x if self.first else x[:, :channels])
        mean, spent = torch.zeros_like(made), made.new_zeros(len(x), 1, 1, 1, dtype=torch.float32)
        if not self.first:
            mean, spent = x[:, channels:-1], x[:, -1:, :1, :1]
        if self.score is None:
            return mean + (1 - spent) * made
        score = torch.sigmoid(self.score(pool(made)).float()).view(-1, 1, 1, 1)
        halts = spent + score >= 1 - EPSILON
        # The last unit that runs gets what remains.
        share = torch.where(halts, 1 - spent, score)
        spent = torch.where(halts, torch.ones_like(spent), spent + score)
        return torch.cat([made, mean + share * made, spent.expand(-1, 1, *made.shape[2:])], dim=1)


def leave_stage(x: Tensor) -> Tensor:
    """What leaves a stage whose last unit is skipped: the mean `[B, C, H, W]` of what ran."""
    channels = (x.shape[1] - 1) // 2
    # The scores add up to 1, but where a budget lets a stage halt earlier.
    return x[:, channels:-1] / x[:, -1:, :1, :1]


class HaltingRouters(RouterBank):
    """Goes on in a stage as long as its scores are under 1 - epsilon. It has no weights: the units have.

    Attributes:
        stages: The junctions of each stage, all its units but the first.
    """

    def __init__(self, stages: Sequence[range]) -> None:
        super().__init__(sum(map(len, stages)))
        self.stages = tuple(stages)

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score a junction by the scores so far."""
        del index, prices
        left = 1 - EPSILON - features[:, -1, 0, 0]
        return torch.stack([left, torch.zeros_like(left)], dim=1), state


@junctions.register("act")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Act(Junction):
    """Each stage runs its units until their halting scores add up to one, image by image (ACT, Graves, 2016)."""

    about: ClassVar[str] = "after how many units each stage halts"
    cheapest: ClassVar[str] = "every stage halted after its first unit"
    halts: ClassVar[bool] = True

    def check(self, others: Sequence[Junction]) -> None:
        """Raise InputError if anything else is decided, too."""
        if len(others) > 1:
            raise InputError("junctions=act goes alone: what leaves a stage is a mean of what its units make")

    def attach(self, draft: Draft) -> None:
        """Let each stage of several units halt. Raises InputError where there is none."""
        view, stages, first = draft.view, list[range](), 0
        if draft.priced or view.pruned:
            raise InputError("junctions=act is for whole networks, without adaptive_cost")
        channels = {place.after: place.channels for place in draft.places}
        for _, group in itertools.groupby(view.units, key=lambda unit: unit.stage):
            units = [unit for unit in group if unit.computes and not unit.dropped]
            # A unit that changes the shape of features can only be the first one of a stage.
            if len(units) < 2 or any(not unit.skippable or unit.shortcut is not None for unit in units[1:]):
                continue
            for unit in units:
                width = channels[unit.name]
                ends = {"first": unit is units[0], "last": unit is units[-1]}
                unit.block = HaltingUnit(unit.block, width, **ends)
                view.model.set_submodule(unit.name, unit.block)
                if unit is not units[0]:
                    unit.sinks = (Sink.RUN, Sink.SKIP)
            units[-1].shortcut = leave_stage
            stages.append(range(first, first + len(units) - 1))
            first += len(units) - 1
        if not stages:
            raise InputError(f"{view.spec.full_name} has no stage of several units with plain shortcuts")
        draft.bank = HaltingRouters(stages)


def stages_of(network: RoutedNetwork) -> tuple[range, ...]:
    """The junctions of each stage that halts by scores; none in other networks."""
    return tuple(stage for bank in network.banks if isinstance(bank, HaltingRouters) for stage in bank.stages)
