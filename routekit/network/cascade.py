"""Cascades: a network that does not know asks the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routekit.backbones.unit import ModelSpec
from routekit.errors import InputError
from routekit.network.network import RoutedNetwork
from routekit.registry import nearest
from routekit.routing.certainty import LearnedCertainty, certainties
from routekit.routing.gate import Gate, hard

# The rule that is fitted to images.
LEARNED = "learned"


@dataclass(frozen=True)
class CascadeTrace:
    """What a batch did in a cascade, or in one network of it; columns as in `columns` of either.

    logits:   [B, classes] of the answer; of a cascade, log-probabilities
    routes:   [B, n] bool: the units that ran, and the networks that were asked
    margins:  [B, n] by how much each decision preferred to run or to ask; -inf where nobody decided
    """

    logits: Tensor
    routes: Tensor
    margins: Tensor

    @property
    def ran(self) -> Tensor:
        """[B, n] bool: `routes`, as in a single network's trace."""
        return self.routes


Ask = Callable[[int, Tensor, Tensor | None], CascadeTrace]


class Cascade(nn.Module):
    """Networks over the same classes, the cheapest first. Each answers if it is sure, and else asks the next.

    An "I don't know" cascade (Wang et al., "IDK Cascades: Fast Deep Learning by Learning not to Overthink", 2018) whose
    networks are taken as they are. A network is asked if the certainty of the one before it is at most `threshold`.

    rule:     how certainty is measured: "confidence", "entropy", or "learned" (`evaluation/know.py`)
    average:  answer with the mean of the probabilities of all networks that were asked

    Raises InputError for networks that do not take the same images to the same number of classes.
    """

    threshold: Tensor

    def __init__(
        self,
        stages: Sequence[RoutedNetwork],
        *,
        rule: str = "confidence",
        average: bool = False,
        threshold: float = 1.0,
    ) -> None:
        super().__init__()
        if len(stages) < 2:
            raise InputError("a cascade takes at least two networks")
        first, *others = (stage.spec for stage in stages)
        for other in others:
            if (other.num_classes, other.input_size) != (first.num_classes, first.input_size):
                raise InputError(
                    f"{first.full_name} takes {first.input_size} to {first.num_classes} classes, {other.full_name} "
                    f"{other.input_size} to {other.num_classes}: no cascade can be made of them"
                )
        if rule != LEARNED and rule not in certainties:
            raise InputError(f"unknown rule {rule!r}: {nearest(rule, [*certainties, LEARNED])}")
        self.stages = nn.ModuleList(stages)
        self.rule, self.average = rule, average
        self._learned = nn.ModuleList(LearnedCertainty() for _ in stages[1:] if rule == LEARNED)
        self._certainty = None if rule == LEARNED else certainties[rule]
        self.register_buffer("threshold", torch.tensor(threshold))
        self.eval()

    @property
    def spec(self) -> ModelSpec:
        """What images have to look like: as for the first network."""
        return self.networks[0].spec

    @property
    def networks(self) -> list[RoutedNetwork]:
        """The networks, in order."""
        return [stage for stage in self.stages if isinstance(stage, RoutedNetwork)]

    @property
    def learned(self) -> list[LearnedCertainty]:
        """What each network but the last knows about its own answers, with the rule "learned"."""
        return [known for known in self._learned if isinstance(known, LearnedCertainty)]

    @property
    def name(self) -> str:
        """The networks' names in a row."""
        return " -> ".join(network.name for network in self.networks)

    @property
    def columns(self) -> list[str]:
        """What the columns of a route decide: each network's own, and between two networks whether to ask."""
        names: list[str] = []
        for number, network in enumerate(self.networks):
            names += [f"ask {number}"] if number else []
            names += [f"{number}/{column}" for column in network.columns]
        return names

    @property
    def places(self) -> list[range]:
        """Where each network's own columns are; before those of all but the first is the one that asks it."""
        found: list[range] = []
        start = 0
        for network in self.networks:
            found.append(range(start, start + len(network.columns)))
            start = found[-1].stop + 1
        return found

    def each(self, change: Callable[[RoutedNetwork], RoutedNetwork]) -> "Cascade":
        """The cascade whose networks are what `change` makes of these."""
        networks = [change(network) for network in self.networks]
        changed = Cascade(networks, rule=self.rule, average=self.average, threshold=float(self.threshold))
        changed._learned.load_state_dict(self._learned.state_dict())
        return changed

    def forward(
        self,
        x: Tensor,
        *,
        gate: Gate = hard,
        generator: torch.Generator | None = None,
        routes: Tensor | None = None,
        threshold: float | None = None,
    ) -> CascadeTrace:
        """Images [B, C, H, W], normalised as for the first network -> the trace of the batch.

        `routes` [B, n] bool takes the place of all decisions, `threshold` that of the cascade's own.
        """

        def ask(number: int, images: Tensor, forced: Tensor | None) -> CascadeTrace:
            trace = self.networks[number](images, gate=gate, generator=generator, routes=forced)
            return CascadeTrace(trace.logits, trace.ran, trace.margins)

        return self.walk(x, ask, routes=routes, threshold=threshold)

    def walk(
        self, x: Tensor, ask: Ask, *, routes: Tensor | None = None, threshold: float | None = None
    ) -> CascadeTrace:
        """Take a batch through the cascade; each network is asked about only the images that have to ask it.

        `ask` (the network's number, images as it wants them, their forced route if any) gives its logits, and what of
        its own columns ran and was preferred.
        """
        limit = self.threshold if threshold is None else threshold
        columns = len(self.columns)
        probabilities = x.new_zeros(len(x), self.spec.num_classes)
        ran = torch.zeros(len(x), columns, dtype=torch.bool, device=x.device)
        margins = torch.full((len(x), columns), -torch.inf, device=x.device)
        asking = torch.arange(len(x), device=x.device)
        for number, (network, place) in enumerate(zip(self.networks, self.places, strict=True)):
            if number:
                doubt = limit - self.certainty(number - 1, probabilities[asking])
                asks = doubt >= 0 if routes is None else routes[asking, place.start - 1]
                margins[asking, place.start - 1], ran[asking, place.start - 1] = doubt, asks
                asking = asking[asks]
            if not len(asking):
                break
            own = slice(place.start, place.stop)
            said = ask(number, self.as_for(network, x[asking]), None if routes is None else routes[asking, own])
            ran[asking, own], margins[asking, own] = said.routes, said.margins
            probabilities[asking] = self.combine(number, probabilities[asking], said.logits)
        return CascadeTrace(probabilities.clamp_min(torch.finfo(x.dtype).tiny).log(), ran, margins)

    def units_run(self, routes: Tensor) -> Tensor:
        """Routes [B, n] bool -> [B] how many units each executes, in all networks that were asked."""
        total = torch.zeros(len(routes), dtype=torch.int64)
        for number, (network, place) in enumerate(zip(self.networks, self.places, strict=True)):
            asked = routes[:, place.start - 1].cpu() if number else torch.ones(len(routes), dtype=torch.bool)
            total += asked * network.units_run(routes[:, place.start : place.stop])
        return total

    @property
    def units(self) -> int:
        """How many units the networks have."""
        return sum(network.units for network in self.networks)

    def certainty(self, number: int, probabilities: Tensor) -> Tensor:
        """How sure network `number` is, [B], that what is known with its answer [B, classes] will do."""
        certain: Tensor = (self._certainty or self.learned[number])(probabilities)
        return certain

    def combine(self, number: int, before: Tensor, logits: Tensor) -> Tensor:
        """What was known before [B, classes], and what network `number` says -> what is known now [B, classes]."""
        known = number / (number + 1) if self.average else 0.0
        return known * before + (1 - known) * logits.softmax(dim=1)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W], normalised as for the first network -> log-probabilities [B, classes]."""
        logits: Tensor = self(x).logits
        return logits

    def as_for(self, network: RoutedNetwork, x: Tensor) -> Tensor:
        """Images normalised as the first network wants them -> as `network` does."""
        ours, theirs = self.spec, network.spec
        if (ours.mean, ours.std) == (theirs.mean, theirs.std):
            return x
        mean, std, its_mean, its_std = (
            x.new_tensor(values).view(1, -1, 1, 1) for values in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        return (x * std + mean - its_mean) / its_std
