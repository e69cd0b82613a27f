"""Put a routed network together as one ONNX graph that skips what an image does not need.

Two forms that route, with the same decisions, and one to compare them with:
  single  for one image: every unit is the branch of an `If`
  batch   for any number: inside the branch, the images that run the unit are gathered, computed and put back
  dense   for any number: every unit runs, no router is asked
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from routekit.backbones.unit import ResidualUnit
from routekit.errors import ExportError
from routekit.execution.executor import Segment, segments
from routekit.export.onnx.piece import Exporter, Piece
from routekit.network.convert import example_input
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FixedRoute
from routekit.routing.stacked import StackedRouters

Form = Literal["single", "batch", "dense"]


class Graph:
    """Nodes and constants under construction; every value has its own name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.count = 0

    def fresh(self, hint: str) -> str:
        """Return a name that no value has yet."""
        self.count += 1
        return f"{hint}.{self.count}"

    def constant(self, value: Any) -> str:
        """Add a constant, int64 or float32, and return its name."""
        name, array = self.fresh("constant"), np.asarray(value)
        dtype = np.int64 if array.dtype.kind == "i" else np.float32
        self.tensors.append(numpy_helper.from_array(np.asarray(array, dtype=dtype, order="C"), name))
        return name

    def add(self, kind: str, *inputs: str, outputs: int = 1, hint: str = "", **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or the list of them."""
        names = [self.fresh(hint or kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def place(self, piece: Piece, source: str, hint: str) -> str:
        """Add a piece that reads `source`; returns the name of its output."""
        target = self.fresh(hint)
        placed = piece.place(target, source, target)
        self.nodes += placed.nodes
        self.tensors += placed.tensors
        return target

    @contextmanager
    def branch(self) -> Iterator[list[NodeProto]]:
        """Collect the nodes that are added meanwhile apart, for a branch; constants stay in the outer graph."""
        outer, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = outer

    def choose(
        self, condition: str, then: Callable[[], list[str]], otherwise: Callable[[], list[str]], hint: str
    ) -> list[str]:
        """Add an `If` whose branches give the same number of values."""
        graphs, counts = [], []
        for name, build in (("then", then), ("else", otherwise)):
            with self.branch() as nodes:
                # What a branch gives must be made in it.
                made = {output for node in nodes for output in node.output}
                values = build()
                made = {output for node in nodes for output in node.output}
                values = [value if value in made else self.add("Identity", value) for value in values]
            outputs = [helper.make_empty_tensor_value_info(value) for value in values]
            graphs.append(helper.make_graph(nodes, f"{hint}/{name}", [], outputs))
            counts.append(len(values))
        assert counts[0] == counts[1]
        names = [self.fresh(hint) for _ in range(counts[0])]
        self.nodes.append(
            helper.make_node("If", [condition], names, name=names[0], then_branch=graphs[0], else_branch=graphs[1])
        )
        return names


class Assembly:
    """Builds the graph of one network, which is in the form that `prepare` gives."""

    def __init__(self, network: RoutedNetwork, form: Form, exporter: Exporter) -> None:
        self.network, self.form, self.exporter = network, form, exporter
        self.graph = Graph()
        self.columns: list[str] = []

    @torch.no_grad()
    def build(self) -> GraphProto:
        """Images "images" [N, C, H, W], normalised -> "logits" [N, classes] and "margins" [N, n]; N = 1 if single.

        The dense form has no margins.
        """
        view, graph = self.network.view, self.graph
        example = example_input(view)
        model = view.model
        x = graph.place(self.exporter.export("the stem", view.stem, model, example, "stem"), "images", "stem")
        example = view.stem(example)
        for segment in segments(self.network):
            if segment.junctions and self.form != "dense":
                x, example = self._group(segment, x, example)
                continue
            for unit in segment.units:
                x = graph.place(self._run(unit, example), x, unit.name)
                example = unit.run(example)
        logits = graph.place(self.exporter.export("the head", view.head, model, example, "head"), x, "head")
        graph.nodes.append(helper.make_node("Identity", [logits], ["logits"], name="logits"))
        rows = 1 if self.form == "single" else "N"
        outputs = [_value("logits", [rows, view.spec.num_classes])]
        if self.columns:
            graph.nodes.append(helper.make_node("Concat", self.columns, ["margins"], name="margins", axis=1))
            outputs.append(_value("margins", [rows, len(self.columns)]))
        return helper.make_graph(
            graph.nodes,
            view.spec.full_name,
            [_value("images", [rows, *view.spec.input_size])],
            outputs,
            graph.tensors,
        )

    def _group(self, segment: Segment, x: str, example: torch.Tensor) -> tuple[str, torch.Tensor]:
        """Add a group of junctions; `example` are features that its units can read."""
        graph, units = self.graph, segment.units
        left = self._survey(segment.junctions, x, example)
        for place, unit in enumerate(units):
            rest = segment.junctions[place + 1 :]
            column = left
            if rest:
                parts = graph.constant([1, len(rest)])
                column, left = graph.add("Split", left, parts, outputs=2, axis=1, hint=f"{unit.name}/margin")
            self.columns.append(column)
            axes = [0, 1] if self.form == "single" else [1]
            column = graph.add("Squeeze", column, graph.constant(axes))
            runs = graph.add("GreaterOrEqual", column, graph.constant(0.0), hint=f"{unit.name}/runs")
            ways = self._single if self.form == "single" else self._batch
            condition, then, otherwise = ways(unit, x, left if rest else "", rest, runs, example)
            x, *remaining = graph.choose(condition, then, otherwise, unit.name)
            left = remaining[0] if rest else ""
            example = unit.run(example) if unit.shortcut is not None else example
        return x, example

    def _single(
        self, unit: ResidualUnit, x: str, left: str, rest: range, runs: str, example: torch.Tensor
    ) -> tuple[str, Callable[[], list[str]], Callable[[], list[str]]]:
        """One image runs the unit or takes its shortcut."""

        def then() -> list[str]:
            ran = self.graph.place(self._run(unit, example), x, f"{unit.name}/ran")
            return [ran, self._survey(rest, ran, example)] if rest else [ran]

        def otherwise() -> list[str]:
            return [self._skip(unit, x, example)] + ([left] if rest else [])

        return runs, then, otherwise

    def _batch(
        self, unit: ResidualUnit, x: str, left: str, rest: range, runs: str, example: torch.Tensor
    ) -> tuple[str, Callable[[], list[str]], Callable[[], list[str]]]:
        """The images that run the unit are gathered and put back; nobody computes what nobody runs."""
        graph = self.graph
        counted = graph.add("Cast", runs, to=TensorProto.INT32)
        most = graph.add("ReduceMax", counted, graph.constant([0]), keepdims=0)
        anyone = graph.add("Cast", most, to=TensorProto.BOOL, hint=f"{unit.name}/anyone")

        def rows(chosen: str) -> str:
            return str(graph.add("Transpose", graph.add("NonZero", chosen), perm=[1, 0]))

        def take(values: str, chosen: str) -> str:
            return str(graph.add("GatherND", values, chosen))

        def then() -> list[str]:
            chosen = rows(runs)
            ran = graph.place(self._run(unit, example), take(x, chosen), f"{unit.name}/ran")
            whole = x
            if unit.shortcut is not None:
                others = rows(graph.add("Not", runs))
                skipped = self._skip(unit, take(x, others), example)
                shape = unit.run(example).shape[1:]
                batch = graph.add("Shape", runs)
                blank = graph.add(
                    "Expand",
                    graph.constant(0.0),
                    graph.add("Concat", batch, graph.constant(list(shape)), axis=0),
                )
                whole = graph.add("ScatterND", blank, others, skipped)
            together = graph.add("ScatterND", whole, chosen, ran)
            if not rest:
                return [together]
            return [together, graph.add("ScatterND", left, chosen, self._survey(rest, ran, example))]

        def otherwise() -> list[str]:
            return [self._skip(unit, x, example)] + ([left] if rest else [])

        return anyone, then, otherwise

    def _run(self, unit: ResidualUnit, example: torch.Tensor) -> Piece:
        return self.exporter.export(unit.name, unit.run, unit.block, example, self._kind("run", unit, example))

    def _skip(self, unit: ResidualUnit, x: str, example: torch.Tensor) -> str:
        if unit.shortcut is None:
            return x
        name = f"the shortcut of {unit.name}"
        piece = self.exporter.export(name, unit.skip, unit.block, example, self._kind("skip", unit, example))
        return self.graph.place(piece, x, f"{unit.name}/skipped")

    def _kind(self, way: str, unit: ResidualUnit, example: torch.Tensor) -> Any:
        # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves out.
        look = unit.name if self.network.view.spec.source == "custom" else repr(unit.block)
        return (way, look, tuple(example.shape))

    def _survey(self, junctions: range, x: str, example: torch.Tensor) -> str:
        """Ask the routers of `junctions` about features x: margins [N, m]."""
        graph, routers = self.graph, self.network.routers
        if isinstance(routers, FixedRoute):
            margins = routers.survey(junctions, example)[0].numpy()
            batch = graph.add("Slice", graph.add("Shape", x), graph.constant([0]), graph.constant([1]))
            shape = graph.add("Concat", batch, graph.constant([len(junctions)]), axis=0)
            return str(graph.add("Expand", graph.constant(margins), shape))
        if isinstance(routers, StackedRouters):
            return self._stacked(routers, junctions, x)
        name = f"the router of {self.network.junctions[junctions.start].name}"
        if routers.survey(junctions, example)[1] is not None:
            raise ExportError(f"{name} cannot be exported: it carries a state from unit to unit")
        piece = self.exporter.export(
            name, lambda features: routers.survey(junctions, features)[0], routers, example, (name, junctions)
        )
        return graph.place(piece, x, "survey")

    def _stacked(self, routers: StackedRouters, junctions: range, x: str) -> str:
        graph = self.graph
        first, bias, second, offset = (tensor.numpy() for tensor in routers.weights(junctions))
        pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x, hint="pooled"))
        hidden = graph.add("Gemm", pooled, graph.constant(first.T), graph.constant(bias))
        hidden = graph.add("Relu", hidden, hint="hidden")
        # Each router reads its own hidden units: a block-diagonal matrix is one node instead of four.
        blocks = np.zeros((hidden_width := second.shape[0] * second.shape[1], len(second)), dtype=np.float32)
        rows = np.arange(hidden_width)
        blocks[rows, rows // second.shape[1]] = second.reshape(-1)
        return str(graph.add("Gemm", hidden, graph.constant(blocks), graph.constant(offset), hint="margins"))


def _value(name: str, shape: list[Any]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
