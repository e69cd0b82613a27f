"""Put a routed network together as one ONNX graph that skips what an image does not need.

Two forms that route, with the same decisions, and one to compare them with:
  single  for one image: every unit is the branch of an `If`
  batch   for any number: inside the branch, the images that run the unit are gathered, computed and put back
  dense   for any number: every unit runs, no router is asked
"""

from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from onnx import GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper

from routekit.backbones.unit import ResidualUnit
from routekit.errors import ExportError
from routekit.execution.executor import Segment, segments
from routekit.export.onnx.graph import Graph
from routekit.export.onnx.parts import Parts
from routekit.network.exits import Exit
from routekit.routing.router import FixedRoute
from routekit.routing.stacked import StackedRouters

Form = Literal["single", "batch", "dense"]


class Assembly:
    """Builds the graph of one network from its parts."""

    def __init__(self, parts: Parts, form: Form, graph: Graph | None = None) -> None:
        self.parts, self.form = parts, form
        self.network = parts.network
        self.graph = graph or Graph()

    @torch.no_grad()
    def build(self) -> GraphProto:
        """Images "images" [N, C, H, W], normalised -> "logits" [N, classes] and "margins" [N, n]; N = 1 if single.

        The dense form has no margins.
        """
        view, graph = self.network.view, self.graph
        rows = 1 if self.form == "single" else "N"
        names = ["logits"] if self.form == "dense" else ["logits", "margins"]
        widths = [view.spec.num_classes, len(self.network.columns)]
        found = [self.dense("images")] if self.form == "dense" else self.answers("images")
        for name, made in zip(names, found, strict=True):
            graph.nodes.append(helper.make_node("Identity", [made], [name], name=name))
        return helper.make_graph(
            graph.nodes,
            view.spec.full_name,
            [value("images", [rows, *view.spec.input_size])],
            [value(name, [rows, width]) for name, width in zip(names, widths, strict=False)],
            graph.tensors,
        )

    def dense(self, images: str) -> str:
        """Images -> logits [N, classes]: every unit runs, no router is asked."""
        x = self.graph.place(self.parts.stem(), images, "stem")
        for unit in self.network.view.units:
            if unit.computes:
                x = self.graph.place(self.parts.run(unit), x, unit.name)
        return self.graph.place(self.parts.head(), x, "head")

    def answers(self, images: str) -> tuple[str, str]:
        """Images -> logits [N, classes], and the margins of all decisions [N, n]."""
        x = self.graph.place(self.parts.stem(), images, "stem")
        logits, *margins = self._rest(segments(self.network), x, images)
        return logits, margins[0] if len(margins) == 1 else self.graph.add("Concat", *margins, axis=1)

    def _rest(self, ahead: list[Segment], x: str, images: str) -> list[str]:
        """Take features through the segments that are left: logits [N, classes], the margins of units and of exits.

        Of both kinds, [N, n], only those that there are. `images` are those that the features are of.
        """
        columns: list[str] = []
        for place, segment in enumerate(ahead):
            if segment.junctions:
                x = self._group(segment, x, columns)
            elif segment.units[0].computes:
                x = self.graph.place(self.parts.run(segment.units[0]), x, segment.units[0].name)
            if segment.exit is not None:
                return self._leave(segment.exit, ahead[place + 1 :], x, images, columns)
        logits = self.graph.place(self.parts.head(), x, "head")
        if self.network.looks_again:
            both = self.graph.add("Add", logits, self.dense(self.graph.mirrored(images)))
            logits = self.graph.add("Mul", both, self.graph.constant(0.5))
        return [logits, self._table(columns)] if columns else [logits]

    def _leave(self, leaving: Exit, ahead: list[Segment], x: str, images: str, columns: list[str]) -> list[str]:
        """Let the images that take an exit leave: what is behind it is computed for the others alone."""
        graph, classes = self.graph, self.network.view.spec.num_classes
        told = graph.place(self.parts.exit(leaving), x, f"exit/{leaving.after}")
        logits, onwards = (
            graph.add("Slice", told, graph.constant([start]), graph.constant([stop]), graph.constant([1]))
            for start, stop in ((0, classes), (classes, classes + 1))
        )
        goes = graph.add("GreaterOrEqual", graph.add("Reshape", onwards, graph.constant([-1])), graph.constant(0.0))
        units = sum(len(segment.junctions) for segment in ahead) * self.network.routers.width
        exits = sum(segment.exit is not None for segment in ahead)
        behind = [count for count in (units, exits) if count]

        def nothing() -> list[str]:
            return [self.nothing(logits, count) for count in behind]

        def then() -> list[str]:
            if self.form == "single":
                return self._rest(ahead, x, images)
            rows = graph.rows(goes)
            chosen = graph.add("GatherND", images, rows) if self.network.looks_again else images
            rest = self._rest(ahead, graph.add("GatherND", x, rows), chosen)
            whole = zip([logits, *nothing()], rest, strict=True)
            return [graph.add("ScatterND", all_, rows, some) for all_, some in whole]

        def otherwise() -> list[str]:
            return [logits, *nothing()]

        condition = goes if self.form == "single" else graph.anyone(goes)
        answer, *margins = graph.choose(condition, then, otherwise, f"past/{leaving.after}")
        own = [self._table(columns)] if columns else []
        of_units = [*own, *(margins[:1] if units else [])]
        of_exits = [onwards, *(margins[-1:] if exits else [])]
        return [answer, *(graph.add("Concat", *found, axis=1) for found in (of_units, of_exits) if found)]

    def nothing(self, like: str, columns: int) -> str:
        """The margins of decisions that nobody takes, [N, columns], for as many images as `like` [N, k] has."""
        graph = self.graph
        batch = graph.add("Slice", graph.add("Shape", like), graph.constant([0]), graph.constant([1]))
        shape = graph.add("Concat", batch, graph.constant([columns]), axis=0)
        return str(graph.add("Expand", graph.constant(-np.inf), shape))

    def _table(self, columns: list[str]) -> str:
        """Put columns [N] side by side: [N, n]."""
        rows = self.graph.add("Concat", *columns, axis=0)
        rows = self.graph.add("Reshape", rows, self.graph.constant([len(columns), -1]))
        return str(self.graph.add("Transpose", rows, perm=[1, 0]))

    def _group(self, segment: Segment, x: str, columns: list[str]) -> str:
        """Add a group of junctions, and their margins to `columns`."""
        graph, units, width = self.graph, segment.units, self.network.routers.width
        pass_on = self._single if self.form == "single" else self._batch
        left = self._survey(segment.junctions, units[0], x)
        for place, unit in enumerate(units):
            takes = []
            for sink in range(width):
                # Counted from the end: of one image, fewer margins are left after a unit that ran.
                at = graph.constant((place - len(units)) * width + sink)
                columns.append(graph.add("Gather", left, at, axis=1, hint=f"{unit.name}/margin"))
                takes.append(graph.add("GreaterOrEqual", columns[-1], graph.constant(0.0), hint=f"{unit.name}/runs"))
            rest = segment.junctions[place + 1 :]
            x, left = pass_on(unit, x, takes, left, rest, units[place + 1] if rest else None)
        return x

    def _single(
        self, unit: ResidualUnit, x: str, takes: list[str], left: str, rest: range, following: ResidualUnit | None
    ) -> tuple[str, str]:
        """One image takes one of the unit's sinks."""

        def then(sink: int) -> list[str]:
            ran = self.graph.place(self.parts.take(unit, sink), x, f"{unit.name}/ran")
            return [ran] if following is None else [ran, self._survey(rest, following, ran)]

        def otherwise() -> list[str]:
            return [self._skip(unit, x)] if following is None else [self._skip(unit, x), left]

        def way(sink: int) -> list[str]:
            if sink == len(takes):
                return otherwise()
            return self.graph.choose(takes[sink], lambda: then(sink), lambda: way(sink + 1), unit.name)

        x, *remaining = way(0)
        return x, remaining[0] if remaining else ""

    def _batch(
        self, unit: ResidualUnit, x: str, takes: list[str], left: str, rest: range, following: ResidualUnit | None
    ) -> tuple[str, str]:
        """The images that take a sink are gathered and put back; nobody computes what nobody takes."""
        if self.parts.skip(unit) is not None or len(takes) > 1:
            return self._divided(unit, x, takes, left, rest, following)
        graph = self.graph
        zero = numpy_helper.from_array(np.zeros(1, dtype=np.int64))
        values = [x] if following is None else [x, self._last(left, rest)]

        def then() -> list[str]:
            chosen = graph.rows(takes[0])
            ran = graph.place(self.parts.run(unit), graph.add("GatherND", x, chosen), f"{unit.name}/ran")
            return [chosen, ran] if following is None else [chosen, ran, self._survey(rest, following, ran)]

        def otherwise() -> list[str]:
            nobody = graph.add("ConstantOfShape", graph.constant([0, 1]), value=zero)
            return [nobody, *(graph.add("GatherND", value, nobody) for value in values)]

        chosen, *updates = graph.choose(graph.anyone(takes[0]), then, otherwise, unit.name)
        # Outside of the branch, where a runtime may do it in place: it never writes into what a branch is given.
        whole, *remaining = [
            graph.add("ScatterND", value, chosen, update) for value, update in zip(values, updates, strict=True)
        ]
        return whole, remaining[0] if remaining else ""

    def _divided(
        self, unit: ResidualUnit, x: str, takes: list[str], left: str, rest: range, following: ResidualUnit | None
    ) -> tuple[str, str]:
        """A batch where the images that take no other sink take a default that computes, or where there are several."""
        graph, runs = self.graph, takes[0]
        for takers in takes[1:]:
            runs = graph.add("Or", runs, takers)
        remaining = [] if following is None else [self._last(left, rest)]

        def put(sink: int, values: list[str]) -> list[str]:
            chosen = graph.rows(takes[sink])
            ran = graph.place(self.parts.take(unit, sink), graph.add("GatherND", x, chosen), f"{unit.name}/ran")
            updates = [ran] if following is None else [ran, self._survey(rest, following, ran)]
            return [graph.add("ScatterND", all_, chosen, some) for all_, some in zip(values, updates, strict=True)]

        def then() -> list[str]:
            values = [self._others(unit, x, runs), *remaining]
            if len(takes) == 1:
                return put(0, values)
            for sink, takers in enumerate(takes):
                name, before = f"{unit.name}/sink {sink}", values
                values = graph.choose(graph.anyone(takers), partial(put, sink, before), partial(list, before), name)
            return values

        found = graph.choose(graph.anyone(runs), then, lambda: [self._skip(unit, x), *remaining], unit.name)
        return found[0], found[1] if remaining else ""

    def _others(self, unit: ResidualUnit, x: str, runs: str) -> str:
        """A batch in which the images that do not run the unit have what its default gives."""
        graph = self.graph
        if self.parts.skip(unit) is None:
            return x
        others = graph.rows(graph.add("Not", runs))
        skipped = self._skip(unit, graph.add("GatherND", x, others))
        shape = graph.add("Concat", graph.add("Shape", runs), graph.add("Shape", skipped, start=1), axis=0)
        return str(graph.add("ScatterND", graph.add("Expand", graph.constant(0.0), shape), others, skipped))

    def _last(self, left: str, rest: range) -> str:
        """Of the margins that are left, those of the junctions `rest`."""
        width = self.network.routers.width
        bounds = (-len(rest) * width, len(self.network.view.units) * width, 1)
        return str(self.graph.add("Slice", left, *(self.graph.constant([bound]) for bound in bounds)))

    def _skip(self, unit: ResidualUnit, x: str) -> str:
        piece = self.parts.skip(unit)
        return x if piece is None else self.graph.place(piece, x, f"{unit.name}/skipped")

    def _survey(self, junctions: range, unit: ResidualUnit, x: str) -> str:
        """Ask the routers of `junctions`, the first of which is `unit`, about features x: margins [N, m * width]."""
        margins, width = self._margins(junctions, unit, x), self.network.routers.width
        if width == 1:
            return margins
        # Of several ways through a unit, the best: for the others it is -inf, where they are not negative anyway.
        graph = self.graph
        ways = graph.add("Reshape", margins, graph.constant([-1, len(junctions), width]))
        best = graph.add("Equal", graph.add("ArgMax", ways, axis=2), graph.constant(np.arange(width)))
        kept = graph.add("Or", best, graph.add("Less", ways, graph.constant(0.0)))
        ways = graph.add("Where", kept, ways, graph.constant(-np.inf))
        return str(graph.add("Reshape", ways, graph.constant([-1, len(junctions) * width])))

    def _margins(self, junctions: range, unit: ResidualUnit, x: str) -> str:
        graph, routers, parts = self.graph, self.network.routers, self.parts
        if isinstance(routers, StackedRouters):
            return self._stacked(routers, junctions, graph.place(parts.pool(unit), x, "pooled"))
        features = parts.features[unit.name]
        margins, state = routers.survey(junctions, features)
        if isinstance(routers, FixedRoute):
            batch = graph.add("Slice", graph.add("Shape", x), graph.constant([0]), graph.constant([1]))
            shape = graph.add("Concat", batch, graph.constant([len(junctions)]), axis=0)
            return str(graph.add("Expand", graph.constant(margins.numpy()), shape))
        name = f"the router of {unit.name}"
        if state is not None:
            raise ExportError(f"{name} cannot be exported: it carries a state from unit to unit")
        piece = parts.exporter.export(
            name,
            lambda features: routers.survey(junctions, features)[0],
            routers,
            features,
            (name, tuple(features.shape)),
        )
        plain = parts.plain(unit)
        return graph.place(piece, x if plain is None else graph.place(plain, x, "plain"), "survey")

    def _stacked(self, routers: StackedRouters, junctions: range, pooled: str) -> str:
        graph = self.graph
        first, bias, second, offset = (tensor.numpy() for tensor in routers.weights(junctions))
        hidden = graph.add("Gemm", pooled, graph.constant(first.T), graph.constant(bias))
        hidden = graph.add("Relu", hidden, hint="hidden")
        # Each router reads its own hidden units: a block-diagonal matrix is one node instead of four.
        blocks = np.zeros((*second.shape[:2], len(second), second.shape[2]), dtype=np.float32)
        each = np.arange(len(second))
        blocks[each, :, each] = second
        blocks = blocks.reshape(second.shape[0] * second.shape[1], -1)
        return str(graph.add("Gemm", hidden, graph.constant(blocks), graph.constant(offset), hint="margins"))


def value(name: str, shape: list[Any]) -> ValueInfoProto:
    """Describe an input or output, float32."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
