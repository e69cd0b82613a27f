"""A group of junctions in an ONNX graph: each unit in a branch that is computed for the images that take it alone."""

import numpy as np
import torch
from onnx.numpy_helper import from_array

from routekit.backbones.unit import ResidualUnit
from routekit.execution.executor import Segment
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.parts import Parts
from routekit.routing.router import RouterBank
from routekit.routing.stacked import StackedRouters

# The junctions that are surveyed again for the images that ran a unit, and the unit that reads the features then.
Ahead = tuple[range, ResidualUnit] | None


class Group:
    """Writes the units of `segment`, whose routers are those of `routers`.

    `policy` names the margins of all junctions, where routers see the image.
    """

    def __init__(
        self, parts: Parts, graph: Graph, routers: RouterBank, segment: Segment, policy: str, *, single: bool
    ) -> None:
        self.parts, self.graph, self.routers, self.segment = parts, graph, routers, segment
        self.policy, self.single = policy, single

    def write(self, x: str, columns: list[str]) -> str:
        """Add the group.

        Args:
            x: The name of the features that it reads.
            columns: Its margins `[N]` are added to these names.

        Returns:
            The name of the features that it gives.
        """
        graph, units, width = self.graph, self.segment.units, self.routers.width
        margins = self._survey((self.segment.junctions, units[0]), x)
        for place, unit in enumerate(units):
            takes = []
            for sink in range(width):
                # Counted from the end: of one image, fewer margins remain after a unit that ran.
                at = graph.constant((place - len(units)) * width + sink)
                columns.append(graph.add("Gather", margins, at, axis=1, hint=f"{unit.name}/margin"))
                takes.append(graph.add("GreaterOrEqual", columns[-1], graph.constant(0.0), hint=f"{unit.name}/runs"))
            ahead: Ahead = None
            remaining = []
            # What routers find in the image holds, whatever a unit makes of the features.
            if unit is not units[-1] and not self.policy:
                rest = self.segment.junctions[place + 1 :]
                ahead = rest, units[place + 1]
                end = len(self.routers) * width
                remaining = [margins if self.single else graph.slice(margins, -len(rest) * width, end)]
            one_of = self._single if self.single else self._batch
            x, *found = one_of(unit, takes, ahead, x, remaining)
            margins = found[0] if found else margins
        return x

    def _batch(self, unit: ResidualUnit, takes: list[str], ahead: Ahead, x: str, margins: list[str]) -> list[str]:
        """Each image of a batch takes one of the unit's sinks: features, and margins where routers are ahead."""
        values = [self._defaults(unit, x, takes), *margins]
        for sink, takers in enumerate(takes):
            values = self._put(unit, sink, takers, ahead, x, values)
        return values

    def _single(self, unit: ResidualUnit, takes: list[str], ahead: Ahead, x: str, margins: list[str]) -> list[str]:
        """One image takes one of the unit's sinks."""

        def by(sink: int) -> list[str]:
            if sink == len(takes):
                return [self._skip(unit, x), *margins]
            return self.graph.choose(
                takes[sink], lambda: self._taken(unit, sink, ahead, x), lambda: by(sink + 1), unit.name
            )

        return by(0)

    def _put(self, unit: ResidualUnit, sink: int, takers: str, ahead: Ahead, x: str, values: list[str]) -> list[str]:
        """Gather the images of a batch that take a sink and put them back; a sink without images is not computed."""
        graph = self.graph

        def then() -> list[str]:
            rows = graph.rows(takers)
            return [rows, *self._taken(unit, sink, ahead, graph.add("GatherND", x, rows))]

        def otherwise() -> list[str]:
            # Not a constant: OpenVINO reads no empty ones.
            none = graph.add("ConstantOfShape", graph.constant([0, 1]), value=from_array(np.zeros(1, dtype=np.int64)))
            return [none, *(graph.add("GatherND", value, none) for value in values)]

        rows, *updates = graph.choose(graph.anyone(takers), then, otherwise, f"{unit.name}/sink {sink}")
        # Outside of the branch, where a runtime may do it in place: it never writes into what a branch is given.
        return [graph.add("ScatterND", value, rows, update) for value, update in zip(values, updates, strict=True)]

    def _taken(self, unit: ResidualUnit, sink: int, ahead: Ahead, x: str) -> list[str]:
        """What a sink makes of features x, and what the routers ahead find in that."""
        ran = self.graph.place(self.parts.take(unit, sink), f"{unit.name}/ran", x)
        return [ran] if ahead is None else [ran, self._survey(ahead, ran)]

    def _defaults(self, unit: ResidualUnit, x: str, takes: list[str]) -> str:
        """A batch in which the images that take the default have what it gives."""
        graph = self.graph
        if self.parts.take(unit, -1) is None:
            return x
        runs = takes[0]
        for takers in takes[1:]:
            runs = graph.add("Or", runs, takers)

        def some() -> list[str]:
            rows = graph.rows(graph.add("Not", runs))
            skipped = self._skip(unit, graph.add("GatherND", x, rows))
            shape = graph.add("Concat", graph.add("Shape", runs), graph.add("Shape", skipped, start=1), axis=0)
            return [graph.add("ScatterND", graph.add("Expand", graph.constant(0.0), shape), rows, skipped)]

        return graph.choose(graph.anyone(runs), some, lambda: [self._skip(unit, x)], f"{unit.name}/default")[0]

    def _skip(self, unit: ResidualUnit, x: str) -> str:
        return self.graph.place(self.parts.take(unit, -1), f"{unit.name}/skipped", x)

    def _survey(self, ahead: tuple[range, ResidualUnit], x: str) -> str:
        """Add the routers of junctions, which read features x: margins `[N, m * width]`."""
        (junctions, _), graph, width = ahead, self.graph, self.routers.width
        margins = self._margins(*ahead, x)
        if width == 1:
            return margins
        # Of several sinks of a unit, the best: for the others it is -inf, where they are not negative anyway.
        sinks = graph.add("Reshape", margins, graph.constant([-1, len(junctions), width]))
        best = graph.add("Equal", graph.add("ArgMax", sinks, axis=2), graph.constant(np.arange(width)))
        kept = graph.add("Or", best, graph.add("Less", sinks, graph.constant(0.0)))
        sinks = graph.add("Where", kept, sinks, graph.constant(-np.inf))
        return graph.add("Reshape", sinks, graph.constant([-1, len(junctions) * width]))

    def _margins(self, junctions: range, unit: ResidualUnit, x: str) -> str:
        graph, routers, parts = self.graph, self.routers, self.parts
        if self.policy:
            return graph.slice(self.policy, junctions.start * routers.width, junctions.stop * routers.width)
        if not isinstance(routers, StackedRouters):
            return graph.place(
                parts.survey(routers, junctions, unit), "survey", graph.place(parts.plain(unit), "plain", x)
            )
        pooled = graph.place(parts.pool(unit), "pooled", x)
        first, bias, second, constant = routers.weights(junctions)
        hidden = graph.add("Gemm", pooled, graph.constant(first.T), graph.constant(bias))
        # Each router reads its own hidden units: a block-diagonal matrix is one node instead of four.
        blocks = graph.constant(torch.block_diag(*second))  # type: ignore[no-untyped-call]
        return graph.add("Gemm", graph.add("Relu", hidden), blocks, graph.constant(constant), hint="margins")
