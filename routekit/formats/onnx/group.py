"""A group of junctions in an ONNX graph: each unit in a branch that is computed for the images that take it alone."""

from functools import partial

import numpy as np
from onnx import numpy_helper
from torch import Tensor

from routekit.backbones.unit import ResidualUnit
from routekit.errors import ExportError
from routekit.execution.executor import Segment
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.parts import Parts
from routekit.routing.router import RouterBank
from routekit.routing.stacked import StackedRouters


class Group:
    """Writes the units of `segment`, whose routers are those of `routers`.

    `policy` names the margins of all junctions, where routers are asked about the image.
    """

    def __init__(
        self, parts: Parts, graph: Graph, routers: RouterBank, segment: Segment, policy: str, *, single: bool
    ) -> None:
        self.parts, self.graph, self.routers, self.segment = parts, graph, routers, segment
        self.policy, self.single = policy, single

    def write(self, x: str, columns: list[str]) -> str:
        """Add the group, and its margins `[N]` to `columns`; returns what it makes of features x."""
        graph, units, width = self.graph, self.segment.units, self.routers.width
        pass_on = self._single if self.single else self._batch
        left = self._survey(self.segment.junctions, units[0], x)
        for place, unit in enumerate(units):
            takes = []
            for sink in range(width):
                # Counted from the end: of one image, fewer margins are left after a unit that ran.
                at = graph.constant((place - len(units)) * width + sink)
                columns.append(graph.add("Gather", left, at, axis=1, hint=f"{unit.name}/margin"))
                takes.append(graph.add("GreaterOrEqual", columns[-1], graph.constant(0.0), hint=f"{unit.name}/runs"))
            # What routers say about the image holds, whatever a unit makes of the features.
            rest = self.segment.junctions[:0] if self.policy else self.segment.junctions[place + 1 :]
            x, found = pass_on(unit, x, takes, left, rest, units[place + 1] if rest else None)
            left = found or left
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

        def by(sink: int) -> list[str]:
            if sink == len(takes):
                return otherwise()
            return self.graph.choose(takes[sink], lambda: then(sink), lambda: by(sink + 1), unit.name)

        x, *remaining = by(0)
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
        width = self.routers.width
        bounds = (-len(rest) * width, len(self.routers) * width, 1)
        return str(self.graph.add("Slice", left, *(self.graph.constant([bound]) for bound in bounds)))

    def _skip(self, unit: ResidualUnit, x: str) -> str:
        piece = self.parts.skip(unit)
        return x if piece is None else self.graph.place(piece, x, f"{unit.name}/skipped")

    def _survey(self, junctions: range, unit: ResidualUnit, x: str) -> str:
        """Ask the routers of `junctions`, the first of which is `unit`, about features x: margins [N, m * width]."""
        margins, width = self._margins(junctions, unit, x), self.routers.width
        if width == 1:
            return margins
        # Of several sinks of a unit, the best: for the others it is -inf, where they are not negative anyway.
        graph = self.graph
        ways = graph.add("Reshape", margins, graph.constant([-1, len(junctions), width]))
        best = graph.add("Equal", graph.add("ArgMax", ways, axis=2), graph.constant(np.arange(width)))
        kept = graph.add("Or", best, graph.add("Less", ways, graph.constant(0.0)))
        ways = graph.add("Where", kept, ways, graph.constant(-np.inf))
        return str(graph.add("Reshape", ways, graph.constant([-1, len(junctions) * width])))

    def _margins(self, junctions: range, unit: ResidualUnit, x: str) -> str:
        graph, routers, parts = self.graph, self.routers, self.parts
        if self.policy:
            bounds = (junctions.start * routers.width, junctions.stop * routers.width, 1)
            return str(graph.add("Slice", self.policy, *(graph.constant([bound]) for bound in bounds)))
        if isinstance(routers, StackedRouters):
            return self._stacked(routers, junctions, graph.place(parts.pool(unit), x, "pooled"))
        features, name = parts.features[id(unit)], f"the router of {unit.name}"
        if routers.survey(junctions, features)[1] is not None:
            raise ExportError(f"{name} cannot be exported: it carries a state from unit to unit")

        def survey(features: Tensor) -> Tensor:
            margins: Tensor = routers.survey(junctions, features)[0]
            return margins

        kind = (name, id(routers), junctions, tuple(features.shape))
        piece = parts.exporter.export(name, survey, routers, features, kind)
        plain = parts.plain(unit)
        return graph.place(piece, x if plain is None else graph.place(plain, x, "plain"), "survey")

    def _stacked(self, routers: StackedRouters, junctions: range, pooled: str) -> str:
        graph = self.graph
        first, bias, second, constant = (tensor.numpy() for tensor in routers.weights(junctions))
        hidden = graph.add("Gemm", pooled, graph.constant(first.T), graph.constant(bias))
        hidden = graph.add("Relu", hidden, hint="hidden")
        # Each router reads its own hidden units: a block-diagonal matrix is one node instead of four.
        blocks = np.zeros((*second.shape[:2], len(second), second.shape[2]), dtype=np.float32)
        each = np.arange(len(second))
        blocks[each, :, each] = second
        blocks = blocks.reshape(second.shape[0] * second.shape[1], -1)
        return str(graph.add("Gemm", hidden, graph.constant(blocks), graph.constant(constant), hint="margins"))
