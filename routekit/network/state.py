"""The state of a batch in one forward pass."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import ModelSpec
from routekit.network.execution import Execution, masked
from routekit.network.pricing import PriceConditioning
from routekit.routing.decision import GO, SKIP, Decision, Layout, RouteTrace
from routekit.routing.gate import Gate, hard


class ActiveRows:
    """Which images are still in the batch.

    As long as no image has exited, nothing is gathered or scattered.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether all images have exited."""
        return self.rows is not None and not len(self.rows)

    def gather(self, values: Tensor) -> Tensor:
        """Values of the batch `[size, ...]` -> of the active images."""
        return values if self.rows is None else values[self.rows]

    def scatter(self, decision: Decision) -> Decision:
        """What the active images decided -> the decision of the batch: the default, at -inf, for the others."""
        if self.rows is None:
            return decision
        others = decision.logits.shape[1] - 1
        logits = decision.logits.new_tensor([-torch.inf] * others + [0.0]).repeat(self.size, 1)
        weights = decision.weights.new_tensor([0.0] * others + [1.0]).repeat(self.size, 1)
        choice = torch.full((self.size,), others, device=decision.choice.device)
        return Decision(
            logits.index_copy(0, self.rows, decision.logits),
            weights.index_copy(0, self.rows, decision.weights),
            choice.index_copy(0, self.rows, decision.choice),
            None if decision.positions is None else self._all(decision.positions),
            decision.halo,
        )

    def _all(self, positions: Tensor) -> Tensor:
        """Positions `[b, H, W]` of the active images -> `[size, H, W]`; those of the others do not go on."""
        assert self.rows is not None
        return positions.new_full((self.size, *positions.shape[1:]), -torch.inf).index_copy(0, self.rows, positions)

    def scatter_answers(self, answers: Tensor | None, answer: Tensor) -> Tensor:
        """Put the answers of the active images among those of the batch.

        Args:
            answers: `[size, classes]`, or None where no image has exited.
            answer: `[b, classes]`, of the active images.

        Returns:
            `[size, classes]`.
        """
        return answer if answers is None or self.rows is None else answers.index_copy(0, self.rows, answer)

    def keep(self, go: Tensor) -> Tensor:
        """Let all but the images that `go` `[b]`, bool, exit; returns the places of those that stay."""
        on = go.nonzero().squeeze(1)
        self.rows = on if self.rows is None else self.rows[on]
        return on


@dataclass
class ForwardState:
    """One batch on its way through a program.

    Attributes:
        images: `[B, C, H, W]`, as the first view sees them.
        spec: What the first view wants.
        execution: How units are executed.
        exits: Whether images that stop leave the batch.
        routes: `[B, columns]`, bool, in the place of the routers' decisions, or None.
        prices: `[B]`, prices of computing other than the one in force, or None.
        keep_features: Whether what leaves each stage is kept.
        x: `[b, ...]`, of the active images: the image as the view sees it, then the features.
        view: `[b, C, H, W]`, the active images as the present view sees them.
        shared: `[b, ...]`, features that a stem has made for several forms.
        answer: `[b, classes]`, the answer so far; `heads` is the number of heads whose mean it is.
        answers: `[B, classes]`, the answers, of exited images too.
        memory: The state of the present pass's routers.
        decisions: One for each junction and stop met, in order.
        leaves: `[b, classes]` each, the answer so far at each stop, and the last one.
        features: Of each pass on the image as it is, by stage; `stages` are those of the present pass.
    """

    images: Tensor
    spec: ModelSpec
    layout: Layout
    gate: Gate = hard
    execution: Execution = masked
    exits: bool = False
    temperature: float = 1.0
    generator: torch.Generator | None = None
    routes: Tensor | None = None
    prices: Tensor | None = None
    pricing: PriceConditioning | None = None
    keep_features: bool = False
    active: ActiveRows = field(init=False)
    x: Tensor = field(init=False)
    view: Tensor = field(init=False)
    shared: Tensor | None = None
    answer: Tensor | None = None
    heads: int = 0
    answers: Tensor | None = None
    memory: Any = None
    column: int = 0
    mirrored: bool = False
    stages: dict[int, Tensor] | None = None
    decisions: list[Decision] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    features: list[dict[int, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with all images."""
        self.active = ActiveRows(self.images.shape[0])  # len() would be a constant to torch.export
        self.x = self.view = self.images

    @property
    def price(self) -> Tensor | None:
        """`[b]`, the prices of the active images, where there are other prices than the one in force."""
        return None if self.prices is None or self.pricing is None else self.active.gather(self.prices)

    @property
    def price_feature(self) -> Tensor | None:
        """`[b]`, these prices as routers get them."""
        return None if self.price is None or self.pricing is None else self.pricing.feature(self.price)

    def decide(
        self, logits: Tensor, gate: Gate, bias: Tensor | None = None, where: tuple[Tensor, float] | None = None
    ) -> Decision:
        """Decide for the active images at the next junction.

        Args:
            logits: Scores `[b, K]`.
            gate: Turns them into weights.
            bias: `[K - 1]` or `[b, K - 1]`, added to the scores of all sinks but the default.
            where: `positions` `[b, H, W]` and `halo`, as in `Decision`.

        Returns:
            The decision of the active images.
        """
        if bias is not None:
            logits = torch.cat([logits[:, :SKIP] + bias, logits[:, SKIP:]], dim=1)
        wanted, width = logits, logits.shape[1] - 1
        if self.routes is not None:
            taken = self.active.gather(self.routes)[:, self.column : self.column + width].to(logits)
            wanted = torch.cat([taken, 1 - taken.sum(dim=1, keepdim=True)], dim=1)
        weights = gate(wanted, temperature=self.temperature, generator=self.generator, bias=bias)
        decision = Decision(logits, weights, wanted.argmax(dim=1), *(where or ()))
        self._decided(decision)
        return decision

    def decide_nothing(self, sinks: int = 2) -> None:
        """Note what a batch decides at the next junction where no image is active."""
        none = torch.zeros(0, sinks, device=self.images.device)
        self._decided(Decision(none, none, none.argmax(dim=1)))

    def _decided(self, decision: Decision) -> None:
        self.column += decision.logits.shape[1] - 1
        self.decisions.append(self.active.scatter(decision))

    def stop(self, scores: Tensor) -> None:
        """Take scores `[b, 2]` over (go, stop); where images exit, go on with those that go."""
        # What decides to stop learns from its scores, by a policy. A gate that relaxes or teaches is for units.
        decision = self.decide(scores, hard)
        self.conclude()
        if not self.exits:
            return
        on = self.active.keep(decision.weights[:, GO] > 0.5)
        self.x, self.view = self.x[on], self.view[on]
        self.shared = None if self.shared is None else self.shared[on]
        self.answer = None if self.answer is None else self.answer[on]
        self.memory = None if self.memory is None else tuple(part[on] for part in self.memory)

    def conclude(self) -> None:
        """Note the answer so far as that of all active images."""
        assert self.answer is not None  # a stop follows a classifier, and so does the end
        self.leaves.append(self.answer)
        self.answers = self.active.scatter_answers(self.answers, self.answer)

    def trace(self) -> RouteTrace:
        """What came of it, once the program is over."""
        assert self.answers is not None
        together = self.active.rows is None
        return RouteTrace(
            logits=self._stopped() if together else self.answers,
            decisions=tuple(self.decisions),
            layout=self.layout,
            leaves=tuple(self.leaves) if together else (),
            features=tuple(tuple(kept.values()) for kept in self.features),
        )

    def _stopped(self) -> Tensor:
        """`[B, classes]` of a batch that stayed together: of each image, the answer at the first stop that it takes."""
        answers = self.leaves[-1]
        stops = [d for d, is_stop in zip(self.decisions, self.layout.is_stop, strict=True) if is_stop]
        for leaf, stop in zip(reversed(self.leaves[:-1]), reversed(stops), strict=True):
            answers = torch.where((stop.weights[:, GO] > 0.5).unsqueeze(1), answers, leaf)
        return answers
