"""The parts of a network as ONNX pieces: what a graph that routes is put together from."""

from collections.abc import Callable
from typing import Any

import torch
from onnx import helper
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit
from routekit.backbones.walk import walk
from routekit.execution.features import features_at
from routekit.formats.onnx.piece import Exporter, Piece
from routekit.network.deciders import Decider, LearnedDecider
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Stem, Stop, Units
from routekit.routing.decision import GO, STOP
from routekit.routing.router import RouterBank


class Parts:
    """Pieces in standard operators, which every runtime reads. `network` is in the form that `prepare` gives.

    Raises ExportError for what torch cannot export.
    """

    # Of the operator sets that the pieces need beside the standard one.
    domains: tuple[str, ...] = ()

    @torch.no_grad()
    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        self.network, self.exporter = network, exporter
        # What each step reads; what each unit reads, and gives.
        self.reads: dict[int, Tensor] = {}
        self.features: dict[int, Tensor] = {}
        self.gives: dict[int, Tensor] = {}
        self.forms: dict[int, Backbone] = {}
        for step, x in features_at(network):
            self.reads[id(step)] = x
            if isinstance(step, Units):
                for unit, before, after in walk(step.units, x):
                    self.features[id(unit)], self.gives[id(unit)] = before, after
                    self.forms[id(unit)] = step.form

    def stem(self, step: Stem) -> Piece:
        """Images `[N, C, H, W]`, as the view sees them -> features."""
        form, x = step.form, self.reads[id(step)]
        return self.exporter.export("the stem", form.stem, form.model, x, ("stem", *_model(form), x.shape))

    def run(self, unit: ResidualUnit) -> Piece:
        """Features -> what the unit gives if it runs."""
        return self.exporter.export(unit.name, unit.run, unit.block, self.features[id(unit)], self._kind("run", unit))

    def take(self, unit: ResidualUnit, sink: int) -> Piece:
        """Features -> what the unit gives by one of its sinks but the default."""
        taken = unit.sinks[sink]
        return self.branch(unit, taken) if isinstance(taken, nn.Module) else self.run(unit)

    def branch(self, unit: ResidualUnit, branch: nn.Module) -> Piece:
        """Features -> what one of the unit's branches gives."""
        name, features = f"a branch of {unit.name}", self.features[id(unit)]
        return self.exporter.export(name, branch, branch, features, self._kind(f"branch {branch!r}", unit))

    def skip(self, unit: ResidualUnit) -> Piece | None:
        """Features -> what the unit gives by default; None if that is the features themselves."""
        if unit.keeps:
            return None
        default = unit.sinks[-1]
        if isinstance(default, nn.Module):
            return self.branch(unit, default)
        name, features = f"the shortcut of {unit.name}", self.features[id(unit)]
        return self.exporter.export(name, unit.skip, unit.block, features, self._kind("skip", unit))

    def pool(self, unit: ResidualUnit) -> Piece:  # noqa: ARG002 - pieces in a layout of their own differ
        """The features that a unit reads -> their average over the image `[N, C]`."""
        nodes = [
            helper.make_node("GlobalAveragePool", ["features"], ["average"]),
            helper.make_node("Flatten", ["average"], ["pooled"]),
        ]
        return Piece(nodes, [], "features", "pooled")

    def plain(self, unit: ResidualUnit) -> Piece | None:  # noqa: ARG002 - as above
        """The features that a unit reads -> the same `[N, C, H, W]`; None if that is what they are."""
        return None

    def classify(self, step: Classify) -> Piece:
        """Features -> an exit's logits `[N, classes]`."""
        x, name = self.reads[id(step)], f"the exit after {step.name}"
        return self.exporter.export(name, step.head, step.head, x, ("exit", repr(step.head), x.shape))

    def head(self, step: Head) -> Piece:
        """Features -> logits `[N, classes]`."""
        form, x = step.form, self.reads[id(step)]
        return self.exporter.export("the head", form.head, form.model, x, ("head", *_model(form), x.shape))

    def summary(self, step: Stop) -> Piece:
        """Features -> what a router that decides to stop gets of them `[N, S]`."""
        decider, x = step.decider, self.reads[id(step)]
        assert isinstance(decider, LearnedDecider)
        return self._of_decider(step, "summary", decider, decider.summary, x)

    def measures(self, step: Stop) -> Piece:
        """The answer `[N, classes]` -> what that router gets of it."""
        assert isinstance(step.decider, LearnedDecider)
        return self._of_decider(step, "measures", step.decider, step.decider.measures, self._logits)

    def margin(self, step: Stop) -> Piece:
        """What a decider gets -> `[N, 1]`, how much each image prefers to go on. A rule gets the answer."""
        decider = step.decider
        if isinstance(decider, LearnedDecider):
            read = [*decider.summary(self.reads[id(step)])[0], *decider.measures(self._logits)[0]]
            return self._of_decider(step, "margin", decider, _margin(decider.score), torch.stack(read)[None])

        def of_answer(logits: Tensor) -> Tensor:
            scores: Tensor = decider(logits, logits)
            return scores

        return self._of_decider(step, "margin", decider, _margin(of_answer), self._logits)

    def policy(self, routers: RouterBank) -> Piece:
        """Images -> the margins `[N, n * width]` of all junctions, by routers that are asked about the image."""

        def margins(images: Tensor) -> Tensor:
            found: Tensor = routers.survey(range(len(routers)), images, routers.begin(images))[0]
            return found

        x = next(self.reads[id(step)] for step in self.network.steps if isinstance(step, Stem))
        return self.exporter.export("the policy", margins, routers, x, ("policy", repr(routers), x.shape))

    @property
    def _logits(self) -> Tensor:
        return torch.zeros(1, self.network.spec.num_classes)

    def _of_decider(self, step: Stop, what: str, decider: Decider, call: Callable[..., Any], example: Tensor) -> Piece:
        kind = (what, repr(decider), decider.config.rule, tuple(example.shape))
        return self.exporter.export(f"what decides past {step.name}", call, decider, example, kind)

    def _kind(self, sink: str, unit: ResidualUnit) -> Any:
        # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves out.
        form = self.forms[id(unit)]
        look = (id(form.model), unit.name) if form.spec.source == "custom" else repr(unit.block)
        return (sink, look, tuple(self.features[id(unit)].shape))


def _model(form: Backbone) -> tuple[str, str]:
    # Networks of a cascade share an exporter, and may differ where their features do not.
    return form.spec.full_name, repr(form.model)


def _margin(score: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def margin(inputs: Tensor) -> Tensor:
        scores = score(inputs)
        return scores[:, GO : GO + 1] - scores[:, STOP:]

    return margin
