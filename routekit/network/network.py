"""The routed network: how an image goes through stem, units and head, and what is decided on the way."""

from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import ResidualUnit, evaluating
from routekit.errors import InputError
from routekit.network.executor import Execution, sparse
from routekit.network.exits import Exit
from routekit.network.paths import Paths, unmark
from routekit.network.remaining import Remaining
from routekit.network.structure import Structure
from routekit.network.trip import Trip
from routekit.routing.decision import GO, RouteTrace
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

    def decide_by(self, rule: str) -> None:
        """Let exits, where nothing else is decided, go by a rule (`Exit.decide_by`): no price moves it, nor a dial."""
        for leaving in self.exits:
            leaving.decide_by(rule)
        self.dial = self.routers.price = None

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
        trip = Trip(self.layout, Remaining(x.shape[0]), gate, temperature, generator, routes, k_cpt)
        leaves = execution is sparse and not self.training
        images, x, state = x, self.view.stem(x), None
        for unit in self.view.units:
            leaving = self.exit_after(unit)
            if trip.left.nobody:  # a classifier need not know what to do with nothing
                trip.units += [trip.left.nothing(x, len(unit.sinks))] if unit.decides else []
                trip.ends += [trip.left.nothing(x)] if leaving is not None else []
                continue
            x, state = self._through(unit, x, state, trip, execution)
            if keep_features:
                trip.features[unit.stage] = unmark(x)[0] if isinstance(unit.block, Paths) else x
            if leaving is not None:
                x, state = self._past(leaving, x, state, trip, leaves=leaves, keep_features=keep_features)
        if not trip.left.nobody:
            trip.tell(self.conclude(x, trip.left.pick(images)))
        return trip.trace()

    def conclude(self, x: Tensor, images: Tensor) -> Tensor:
        """What images [b, C, H, W] are told that get to the end, with features x there: logits [b, classes], float32.

        Where it looks again, the mean of what is said of them and of their mirror images, of which all is computed.
        """
        said = self.view.head(x).float()
        if not self.looks_again:
            return said
        x = self.view.stem(images.flip(-1))
        for unit in self.view.units:
            x = unit.run(x)
        return (said + self.view.head(x).float()) / 2

    def _through(
        self, unit: ResidualUnit, x: Tensor, state: Any, trip: Trip, execution: Execution
    ) -> tuple[Tensor, Any]:
        """Take what is left of the batch, features [b, C, H, W] and the routers' state, through a unit."""
        if not unit.decides:
            return unit.run(x), state
        index = len(trip.units)
        columns = self.routers.columns(range(index, index + 1))
        logits, state = self.routers(index, x, state, self._told(trip.price))
        decision = trip.decide(logits, columns, trip.gate, self._offset(columns, trip.price))
        trip.units.append(trip.left.spread(decision))
        return execution(unit, x, decision), state

    def _past(
        self, leaving: Exit, x: Tensor, state: Any, trip: Trip, *, leaves: bool, keep_features: bool
    ) -> tuple[Tensor, Any]:
        """Ask an exit about what is left of the batch; where it `leaves`, only those who go on are left then."""
        kept: dict[int, Tensor] | None = {} if keep_features else None
        said, scores = leaving(x, self._told(trip.price), kept)
        trip.hints += [tuple(kept.values())] if kept else []
        column = len(trip.layout.sections) + len(trip.ends)
        # Exits learn from their scores, by a policy; a gate that relaxes or teaches is for units.
        decision = trip.decide(scores, slice(column, column + 1), hard)
        trip.ends.append(trip.left.spread(decision))
        trip.tell(said)
        if leaves:
            on = trip.left.leave(decision.weights[:, GO] > 0.5)
            x, state = x[on], None if state is None else tuple(part[on] for part in state)
        return x, state

    def _told(self, prices: Tensor | None) -> Tensor | None:
        """What routers are told of prices [b]."""
        return None if prices is None or self.dial is None else self.dial.told(prices)

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
