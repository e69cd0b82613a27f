"""One batch on its way through a routed network: by what it decides, and what it was told so far."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from routekit.network.remaining import Remaining
from routekit.routing.decision import GO, SKIP, Decision, Layout, RouteTrace
from routekit.routing.gate import Gate


@dataclass
class Trip:
    """What one forward pass knows of its batch; lists are in the order in which things are met.

    layout:   what the columns of a route are
    left:     the images that have not left by an exit
    gate:     what turns logits into weights at units
    routes:   [B, n] bool in the place of the routers' decisions, or None
    prices:   [B] of computing, other than the one that the dial is set to, or None
    units:    what was decided at each unit
    ends:     and at each exit
    leaves:   [b, classes] what each exit, and at last the network's own classifier, told the images that came there
    features: what left each stage, and `hints` the same inside exits; where they are kept
    answers:  [B, classes] what each image was answered, as far as those who left on the way go
    """

    layout: Layout
    left: Remaining
    gate: Gate
    temperature: float
    generator: torch.Generator | None
    routes: Tensor | None
    prices: Tensor | None
    units: list[Decision] = field(default_factory=list)
    ends: list[Decision] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    features: dict[int, Tensor] = field(default_factory=dict)
    hints: list[tuple[Tensor, ...]] = field(default_factory=list)
    answers: Tensor | None = None

    @property
    def price(self) -> Tensor | None:
        """[b] the prices of the images that are left."""
        return None if self.prices is None else self.left.pick(self.prices)

    def decide(self, logits: Tensor, columns: slice, gate: Gate, offset: Tensor | None = None) -> Decision:
        """Scores [b, K] of a junction -> what the images that are left do there; `columns` are its own of a route.

        `offset` [K - 1] or [b, K - 1] speaks for all sinks but the default.
        """
        if offset is not None:
            logits = torch.cat([logits[:, :SKIP] + offset, logits[:, SKIP:]], dim=1)
        wanted = logits
        if self.routes is not None:
            taken = self.left.pick(self.routes)[:, columns].to(logits)
            wanted = torch.cat([taken, 1 - taken.sum(dim=1, keepdim=True)], dim=1)
        weights = gate(wanted, temperature=self.temperature, generator=self.generator, offset=offset)
        return Decision(logits=logits, weights=weights, choice=wanted.argmax(dim=1))

    def tell(self, said: Tensor) -> None:
        """The images that are left are told `said` [b, classes], by an exit or in the end."""
        self.leaves.append(said)
        self.answers = self.left.answered(self.answers, said)

    def trace(self) -> RouteTrace:
        """What came of it, once it is over."""
        assert self.answers is not None  # somebody was told, at an exit or in the end
        together = self.left.rows is None
        return RouteTrace(
            logits=self._stopped() if together else self.answers,
            decisions=(*self.units, *self.ends),
            layout=self.layout,
            leaves=tuple(self.leaves) if together else (),
            features=tuple(self.features.values()),
            hints=tuple(self.hints),
        )

    def _stopped(self) -> Tensor:
        """[B, classes] of a batch that stayed together: the answer of the first exit that an image takes, or the last.

        All were told by all.
        """
        answers = self.leaves[-1]
        for leaf, end in zip(reversed(self.leaves[:-1]), reversed(self.ends), strict=True):
            answers = torch.where((end.weights[:, GO] > 0.5).unsqueeze(1), answers, leaf)
        return answers
