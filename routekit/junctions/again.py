"""A second look (flip TTA): an image that the answer is not certain enough for is seen once more, mirrored."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.unit import Sink
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.network.deciders import LEARNED, DeciderConfig, RuleDecider
from routekit.network.network import RoutedNetwork
from routekit.network.program import Head, Stem, Stop, Units, View
from routekit.registry import one_of
from routekit.routing.certainty import certainties
from routekit.routing.router import RouterConfig


@junctions.register("again")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Again(Junction):
    """The mean of the answers for an image and for its mirror image counts: test-time augmentation, where it is needed.

    Attributes:
        rule: Which certainty decides: that of the stops before it ("auto"), "confidence" or "entropy".
    """

    about: ClassVar[str] = "whether to look once more, at the image mirrored, if that pays on validation images"
    rank: ClassVar[int] = 3
    learns: ClassVar[str] = "added"

    rule: Annotated[str, one_of("rule", certainties, also=["auto"])] = "auto"

    def check(self, others: Sequence[Junction]) -> None:
        """Raise InputError unless all that is decided beside it is decided by certainty."""
        rules = [getattr(other, "rule", LEARNED) for other in others if other.kind != self.kind]
        if not rules or LEARNED in rules:
            raise InputError(
                "junctions=again joins what is decided by certainty: cascade,again, or exit,again with "
                "junctions.exit.rule=confidence or entropy; without it, nothing is looked at again"
            )

    def attach(self, draft: Draft) -> None:
        """Put a pass on the mirrored image behind the network's own, in which nothing is decided."""
        view = draft.view
        rules = [step.decider.config.rule for step in draft.steps if isinstance(step, Stop)]
        rule = self.rule if self.rule != "auto" else next(iter(rules), "confidence")
        whole = [unit if unit.dropped else replace(unit, sinks=(Sink.RUN,)) for unit in view.units]
        draft.steps += [
            Stop(RuleDecider(DeciderConfig(rule=rule)), "end"),
            View(view.spec, mirrored=True, resolution=view.resolution),
            Stem(view),
            Units(view, whole, prefix="again/"),
            Head(view, combine="mean-logits"),
        ]


def look_again(network: RoutedNetwork) -> RoutedNetwork:
    """Return a copy of a network, which may be trained, that looks again; at first, all images do.

    Raises InputError where not all is decided by certainty.
    """
    again, network = Again(), copy.deepcopy(network)
    if len(network.blueprint.sources) > 1:
        raise InputError("networks that are joined do not look again: let the last one look again before it is joined")
    (source,) = network.blueprint.sources
    junctions = (*source.junctions, again)
    again.check(junctions)
    draft = Draft(network.view, RouterConfig(), steps=network.steps)
    again.attach(draft)
    blueprint = replace(network.blueprint, sources=(replace(source, junctions=junctions),))
    looking = RoutedNetwork(draft.steps, blueprint=blueprint, pricing=network.pricing)
    return looking.to(next(network.parameters()).device)


def look_once(network: RoutedNetwork) -> RoutedNetwork:
    """Return the same network without its second look, if it has one. It shares the modules."""
    if not network.looks_again:
        return network
    *rest, _ = network.passes
    steps = [step for part in rest for step in part]
    (source,) = network.blueprint.sources
    kept = tuple(junction for junction in source.junctions if junction.kind != Again.kind)
    blueprint = replace(network.blueprint, sources=(replace(source, junctions=kept),))
    return RoutedNetwork(steps[:-1], blueprint=blueprint, pricing=network.pricing)
