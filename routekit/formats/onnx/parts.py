"""The parts of a network as ONNX pieces: what a graph that routes is put together from."""

from collections.abc import Sequence
from functools import partial

import torch
from onnx import GraphProto, helper
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit, Sink, example_input, seen_input
from routekit.backbones.walk import run_all, walk
from routekit.errors import ExportError
from routekit.execution.features import features_at
from routekit.formats.onnx.piece import Exporter, piece_of
from routekit.network.deciders import LearnedDecider
from routekit.network.forward import combined, seen
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Combine, Head, Stem, Stop, Units, View
from routekit.routing.decision import GO, STOP
from routekit.routing.router import RouterBank


class Parts:
    """Pieces in standard operators, which every runtime reads. `network` is in the form that `prepare` gives.

    Raises ExportError for what torch cannot export.
    """

    # The operator sets that the pieces need beside the standard one, and their versions.
    domains: tuple[tuple[str, int], ...] = ()

    @torch.no_grad()
    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        self.network, self.exporter = network, exporter
        # What each step and each unit reads; of which network a unit is.
        self.reads: dict[int, Tensor] = {}
        self.forms: dict[int, Backbone] = {}
        for step, x in features_at(network):
            self.reads[id(step)] = x
            if isinstance(step, Units):
                for unit, before, _ in walk(step.units, x):
                    self.reads[id(unit)], self.forms[id(unit)] = before, step.form
        self.images, self.answer = example_input(network.view), torch.zeros(1, network.spec.num_classes)

    def view(self, step: View) -> GraphProto | None:
        """Images `[N, C, H, W]`, normalised for the first pass -> as a view sees them; None if they are the same."""
        ours, theirs = self.network.spec, step.spec
        plain = not step.mirrored and step.resolution is None
        if plain and (ours.mean, ours.std) == (theirs.mean, theirs.std):
            return None
        call, kind = partial(seen, spec=ours, view=step), ("view", ours, theirs, step.mirrored, step.resolution)
        return self.exporter.export("the view", call, nn.Identity(), self.images, kind=kind)

    def of_step(self, step: Stem | Classify | Head | Stop) -> GraphProto | None:
        """What a step computes of the features that it reads, or of the image.

        Args:
            step: A stem gives features, a classifier and a head give logits `[N, classes]`. A stop gives what its
                router gets of the features, `[N, S]`.

        Returns:
            The piece; None for a stop by a rule, which reads the answer alone.
        """
        export, x = self.exporter.export, self.reads[id(step)]
        if isinstance(step, Stop):
            decider = step.decider
            if not isinstance(decider, LearnedDecider):
                return None
            return export(f"what decides past {step.name}", decider.summary, decider, x, kind="summary")
        if isinstance(step, Classify):
            return export(f"the exit after {step.name}", step.head, step.head, x, kind="exit")
        form, part = step.form, "stem" if isinstance(step, Stem) else "head"
        # Networks of a cascade share an exporter, and may differ where their features do not.
        return export(f"the {part}", getattr(form, part), form.model, x, kind=(part, form.spec.full_name))

    def run(self, units: Sequence[ResidualUnit]) -> GraphProto | None:
        """Features -> what leaves units in a row that always run; None if it is the features themselves."""
        units = [unit for unit in units if unit.computes]
        if not units:
            return None
        blocks = nn.ModuleList(next(iter(unit.branches), unit.block) for unit in units)
        kind = tuple((unit.dropped, unit.branches != (), self._own(unit)) for unit in units)
        x = self.reads[id(units[0])]
        return self.exporter.export(
            f"{units[0].name} to {units[-1].name}", partial(run_all, units), blocks, x, kind=kind
        )

    def take(self, unit: ResidualUnit, sink: int) -> GraphProto | None:
        """Features -> what leaves a unit by one of its sinks.

        Args:
            unit: The unit.
            sink: 0 is the dearest sink, -1 the default.

        Returns:
            The piece; None if it is the features themselves.
        """
        taken = unit.sinks[sink]
        if not unit.computes or (taken is Sink.SKIP and unit.keeps):
            return None
        name, owner = unit.name, unit.block
        if isinstance(taken, nn.Module):
            name, owner = f"a branch of {unit.name}", taken
        elif taken is Sink.SKIP:
            name = f"the shortcut of {unit.name}"
        kind = (taken if isinstance(taken, Sink) else "branch", self._own(unit))
        return self.exporter.export(name, partial(unit.take, sink=sink), owner, self.reads[id(unit)], kind=kind)

    def _own(self, unit: ResidualUnit) -> tuple[nn.Module, str] | None:
        """Blocks of the libraries that look alike compute alike; a user's own may differ in what repr does not show."""
        form = self.forms[id(unit)]
        return (form.model, unit.name) if form.spec.source == "custom" else None

    def pool(self, unit: ResidualUnit) -> GraphProto:  # noqa: ARG002 - pieces in a layout of their own differ
        """The features that a unit reads -> their average over the image `[N, C]`."""
        nodes = [
            helper.make_node("GlobalAveragePool", ["features"], ["average"], name="average"),
            helper.make_node("Flatten", ["average"], ["pooled"], name="pooled"),
        ]
        return piece_of(nodes, [], "features", "pooled")

    def plain(self, unit: ResidualUnit) -> GraphProto | None:  # noqa: ARG002 - as above
        """The features that a unit reads -> the same `[N, C, H, W]`; None if that is what they are."""
        return None

    def survey(self, routers: RouterBank, junctions: range, unit: ResidualUnit) -> GraphProto:
        """Features -> the margins of several junctions, by their routers.

        Args:
            routers: A bank without a form of its own in a file.
            junctions: What is decided, `[N, m * width]`.
            unit: The unit that reads the features.

        Returns:
            The piece.

        Raises:
            ExportError: The routers carry a state, or torch cannot export them.
        """
        name, x = f"the router of {unit.name}", self.reads[id(unit)]
        if routers.survey(junctions, x)[1] is not None:
            raise ExportError(f"{name} cannot be exported: it carries a state from unit to unit")
        return self._margins(name, routers, junctions, x)

    def policy(self, routers: RouterBank) -> GraphProto:
        """Images -> the margins `[N, n * width]` of all junctions, by routers that see the image."""
        form = next(s.form for s in self.network.steps if isinstance(s, Units) and s.routers is routers)
        return self._margins("the policy", routers, range(len(routers)), seen_input(form))

    def _margins(self, name: str, routers: RouterBank, junctions: range, x: Tensor) -> GraphProto:
        def margins(read: Tensor) -> Tensor:
            found: Tensor = routers.survey(junctions, read, routers.begin(read))[0]
            return found

        return self.exporter.export(name, margins, routers, x, kind=(routers, junctions))

    def margin(self, step: Stop) -> GraphProto:
        """How much each image prefers to go on, `[N, 1]`: of the answer `[N, classes]`, and of what `of_step` gives."""
        decider, examples = step.decider, [self.answer]
        if isinstance(decider, LearnedDecider):
            examples.append(decider.summary(self.reads[id(step)]))

        def margin(answer: Tensor, *summary: Tensor) -> Tensor:
            scores = (
                decider.score(summary[0], answer) if isinstance(decider, LearnedDecider) else decider(answer, answer)
            )
            return scores[:, GO : GO + 1] - scores[:, STOP:]

        name, kind = f"what decides past {step.name}", ("margin", decider.config)
        return self.exporter.export(name, margin, decider, *examples, kind=kind)

    def combined(self, heads: int, combine: Combine) -> GraphProto:
        """The answer, and the logits of one more head, `[N, classes]` each -> the answer with it.

        Args:
            heads: The number of heads whose mean the answer is.
            combine: How they are combined.

        Returns:
            The piece.
        """

        def add(answer: Tensor, logits: Tensor) -> Tensor:
            return combined(answer, heads, logits, combine)[0]

        kind = ("combined", heads, combine)
        return self.exporter.export("the mean", add, nn.Identity(), self.answer, self.answer, kind=kind)
