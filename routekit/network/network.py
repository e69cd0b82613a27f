"""The routed network: how an image goes through stem, units and head, and what is decided on the way."""

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating
from routekit.errors import InputError
from routekit.network.executor import Execution, sparse
from routekit.network.paths import Paths, unmark
from routekit.network.remaining import Remaining
from routekit.network.structure import Structure
from routekit.routing.decision import GO, SKIP, Decision, RouteTrace
from routekit.routing.gate import Gate, hard


class RoutedNetwork(Structure):
    """A network in which each image runs through only the units that its routers choose.

    One forward serves training and inference: a gate turns logits into weights, an execution turns weights into
    features.
    """

    @torch.no_grad()
    def set_dial(self, k_cpt: float) -> None:
        """Decide at another price of computing, in units of the loss per ten million multiply-adds.

        Raises InputError for a network that was not trained with several, or not with this one.
        """
        if self.dial is None:
            raise InputError(f"this {self.name} was trained for one budget: train with --adaptive-cost to choose later")
        self.dial.check(k_cpt)
        self.dial.k_cpt.fill_(k_cpt)
        self.routers.offset.copy_(-k_cpt * self.dial.surplus)
        for told in (self.routers.price, *(each.price for each in self.exits)):
            if told is not None:
                told.copy_(self.dial.told(self.dial.k_cpt))

    def forward(
        self,
        x: Tensor,
        *,
        gate: Gate = hard,
        execution: Execution = sparse,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        routes: Tensor | None = None,
        keep_features: bool = False,
        k_cpt: Tensor | None = None,
    ) -> RouteTrace:
        """Images [B, C, H, W], normalised -> the trace of the batch, class logits [B, classes] in float32.

        `routes` [B, n] bool takes the place of the routers' decisions, whose logits are kept: to ask what another route
        would have given.
        `k_cpt` [B] are other prices of computing than the one that the dial is set to. `keep_features` keeps what left
        each stage in the trace, for distillation. Under sparse execution an image that takes an exit leaves the batch;
        else, and in training, all go on to the end, and only the answer is the exit's.
        """
        layout, left = self.layout, Remaining(x.shape[0])
        leave = execution is sparse and not self.training
        units: list[Decision] = []
        ends: list[Decision] = []
        leaves: list[Tensor] = []
        features: dict[int, Tensor] = {}
        hints: list[tuple[Tensor, ...]] = []
        answers = state = None

        def decide(logits: Tensor, columns: slice, gate: Gate, offset: Tensor | None = None) -> Decision:
            if offset is not None:
                logits = torch.cat([logits[:, :SKIP] + offset, logits[:, SKIP:]], dim=1)
            wanted = logits
            if routes is not None:
                taken = left.pick(routes)[:, columns].to(logits)
                wanted = torch.cat([taken, 1 - taken.sum(dim=1, keepdim=True)], dim=1)
            weights = gate(wanted, temperature=temperature, generator=generator, offset=offset)
            return Decision(logits=logits, weights=weights, choice=wanted.argmax(dim=1))

        x = self.view.stem(x)
        for unit in self.view.units:
            leaving = self.exit_after(unit)
            if left.nobody:  # a classifier need not know what to do with nothing
                units += [left.nothing(x, len(unit.sinks))] if unit.decides else []
                ends += [left.nothing(x)] if leaving is not None else []
                continue
            at = None if k_cpt is None else left.pick(k_cpt)
            prices = None if at is None or self.dial is None else self.dial.told(at)
            if unit.decides:
                logits, state = self.routers(len(units), x, state, prices)
                columns = self.routers.columns(range(len(units), len(units) + 1))
                decision = decide(logits, columns, gate, self._offset(columns, at))
                x = execution(unit, x, decision)
                units.append(left.spread(decision))
            else:
                x = unit.run(x)
            if keep_features:
                features[unit.stage] = unmark(x)[0] if isinstance(unit.block, Paths) else x
            if leaving is not None:
                kept: dict[int, Tensor] | None = {} if keep_features else None
                said, scores = leaving(x, prices, kept)
                hints += [tuple(kept.values())] if kept else []
                # Exits learn from their scores, by a policy; a gate that relaxes or teaches is for units.
                column = len(layout.sections) + len(ends)
                decision = decide(scores, slice(column, column + 1), hard)
                ends.append(left.spread(decision))
                leaves.append(said)
                if leave:
                    answers = left.answered(answers, said)
                    on = left.leave(decision.weights[:, GO] > 0.5)
                    x, state = x[on], None if state is None else tuple(part[on] for part in state)
        if not left.nobody:
            leaves.append(self.view.head(x).float())
            answers = left.answered(answers, leaves[-1])
        assert answers is not None  # somebody was asked, at an exit or in the end
        return RouteTrace(
            logits=answers if leave else _answers(leaves, ends),
            decisions=(*units, *ends),
            layout=layout,
            leaves=tuple(leaves) if left.rows is None else (),
            features=tuple(features.values()),
            hints=tuple(hints),
        )

    def _offset(self, columns: slice, prices: Tensor | None) -> Tensor:
        """What speaks for a unit's sinks: [width], or [B, width] at prices [B] other than the one that is set."""
        offset = self.routers.offset[columns]
        if prices is None or self.dial is None:
            return offset
        return offset - (prices - self.dial.k_cpt).unsqueeze(1) * self.dial.surplus[columns]

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W], normalised -> class logits [B, classes], under hard routing in eval mode."""
        with evaluating(self):
            logits: Tensor = self(x).logits
        return logits


def _answers(leaves: list[Tensor], ends: list[Decision]) -> Tensor:
    """[B, classes] what each image is answered: by the first exit that it takes, else by the last classifier."""
    answers = leaves[-1]
    for leaf, end in zip(reversed(leaves[:-1]), reversed(ends), strict=True):
        answers = torch.where((end.weights[:, GO] > 0.5).unsqueeze(1), answers, leaf)
    return answers
