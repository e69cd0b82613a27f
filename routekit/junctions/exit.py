"""Exit junctions: classifiers along the way, each with a decision whether its answer is good enough."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.unit import Backbone, evaluating, seen_input
from routekit.backbones.walk import walk_through
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.macs import count
from routekit.network.deciders import IDK, Decider, DeciderConfig, LearnedDecider, build_decider
from routekit.network.heads import heads
from routekit.network.paths import PathDecider, Paths
from routekit.network.program import Classify, Stop
from routekit.registry import one_of


@junctions.register("exit")
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Exit(DeciderConfig, Junction):
    """Early exits (McGill and Perona, "Deciding How to Decide", 2017).

    Attributes:
        at: After which units: "auto" (`count` of them, spread evenly over the dense cost), "stages" (after the last
            unit of each stage but the last one), "first" (after the first unit), "all" (after each but the last), or
            the units' names separated by commas.
        count: How many exits there are with "auto".
        head: What the classifier is: "deep" (three 3x3 convolutions to `width` channels, two of them with strides,
            then pooling and a linear layer), "conv" (one convolution), or "linear" (none).
        width: The channels of the classifier's convolutions.
        rule, hidden, features, detach: What decides: see `DeciderConfig`.
    """

    about: ClassVar[str] = "where to stop"
    cheapest: ClassVar[str] = "every image stopped at the first exit"
    rank: ClassVar[int] = 1
    policies: ClassVar[bool] = True

    at: str = "auto"
    count: Annotated[int, Field(ge=1, le=1000)] = 3
    head: Annotated[str, one_of("exit head", heads)] = "deep"
    width: Annotated[int, Field(ge=1, le=4096)] = 64

    def __post_init__(self) -> None:
        """Raise ValueError for a rule that exits have not."""
        if self.rule == IDK:
            raise ValueError("the rule idk is for cascades of networks that are done")

    def sized(self, budget: float, view: Backbone) -> "Exit":
        """Find the names of the units after which exits lie.

        Raises InputError for a name that is no unit's, and for the last unit, after which the network answers anyway.
        """
        del budget
        found = exit_places(view, self)
        if not found:
            raise InputError(f"{view.spec.full_name} has no unit where junctions.exit.at={self.at} puts an exit")
        return replace(self, at=",".join(found))

    def attach(self, draft: Draft) -> None:
        """Add the exits."""
        for name in exit_places(draft.view, self):
            place = draft.place_after(name)
            own = []
            for _ in range(draft.paths.get(name, 1)):
                head = heads[self.head](place, self.width)
                own.append((head, build_decider(place, self, priced=draft.priced)))
            decider: Decider
            (head, decider), *others = own
            if others:
                head = Paths([each for each, _ in own], marks=False)
                decider = PathDecider(self, [each for _, each in own if isinstance(each, LearnedDecider)])
            draft.insert_after(name, [Classify(head, name), Stop(decider, name)])


@torch.no_grad()
def exit_places(view: Backbone, config: Exit) -> list[str]:
    """Find after which units the exits lie.

    Args:
        view: The network.
        config: Its `at` and `count` count.

    Returns:
        The names of the units, in order.

    Raises:
        InputError: A name that is no unit's.
    """
    names = [unit.name for unit in view.computing]
    if config.at == "first":
        return names[:1]
    if config.at == "all":
        return names[:-1]
    if config.at == "stages":
        return [a.name for a, b in itertools.pairwise(view.units) if a.stage != b.stage]
    if config.at == "auto":
        return _spread(view, names, config.count)
    wanted = [name.strip() for name in config.at.split(",")]
    for name in wanted:
        if name not in names[:-1]:
            known = ", ".join(names[:-1])
            raise InputError(f"no exit can lie after {name!r}: known: auto, stages, first, all, {known}")
    return sorted(set(wanted), key=names.index)


def _spread(view: Backbone, names: Sequence[str], wanted: int) -> list[str]:
    """Spread exits evenly over the cost."""
    with evaluating(view.model):
        total = float(count(view.stem, (seen_input(view),), view.model).flops)
        spent = {}
        for unit, x, _ in walk_through(view):
            total += count(unit.run, (x,), unit.block).flops
            spent[unit.name] = total
    shares = [(place + 1) / (wanted + 1) for place in range(wanted)]
    nearest = {min(names[:-1], key=lambda name: abs(spent[name] - share * spent[names[-1]])) for share in shares}
    return sorted(nearest, key=names.index)
