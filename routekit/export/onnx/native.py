"""Parts as onnxruntime's optimiser leaves them: fused, and in the blocked layout of this machine's CPU family.

Inside the branches of an `If`, onnxruntime applies neither its blocked layout (NCHWc) nor the fusions that come with
it, so that an executed unit costs twice its price in a dense graph. Here the dense graph is optimised as a whole, cut
at the borders of the units, and put together again with branches. The layout is that of a CPU family and of a version
of onnxruntime: `layout` says which.
"""

from dataclasses import replace
from typing import Any

from onnx import TensorProto, helper

from routekit.backbones.unit import ResidualUnit
from routekit.export.onnx.graph import Graph
from routekit.export.onnx.optimized import BLOCKED, LARGEST_BLOCK, OptimizedGraph, reorders
from routekit.export.onnx.parts import Parts
from routekit.export.onnx.piece import OPSET, Exporter, Piece
from routekit.network.deciders import LearnedDecider
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Stem, Step, Stop, Units, View


class NativeParts(Parts):
    """Pieces of the optimised dense graph; features travel between them in the layout in which they are computed.

    `reads_at` and `gives_at` name, in that graph, what a step or a unit reads and gives when everything runs.
    """

    domains = (BLOCKED, "com.microsoft")

    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        super().__init__(network, exporter)
        graph = Graph()
        self.reads_at: dict[int, str] = {}
        self.gives_at: dict[int, str] = {}
        self.taps: dict[tuple[str, int], str] = {}
        channels: dict[str, int] = {}
        x = shared = "images"
        # A pass on the mirrored image computes the same of another one: its pieces are those of the pass before it.
        known: dict[Any, tuple[str, str]] = {}
        for step in network.steps:
            self.reads_at[id(step)] = x
            if isinstance(step, View):
                x = "images"
            elif isinstance(step, Stem):
                key: Any = ("stem", id(step.form.model))
                if not step.shared and key not in known:
                    known[key] = "images", graph.place(super().stem(step), "images", "stem")
                x = shared if step.shared else known[key][1]
                shared = x
                self.gives_at[id(step)] = x
                channels[x] = step.form.stem(self.reads[id(step)]).shape[1] if not step.shared else channels[x]
            elif isinstance(step, Units):
                for unit in step.units:
                    if (key := ("unit", id(unit.block), unit.dropped)) not in known:
                        known[key] = x, self._place_unit(graph, unit, x)
                    self.reads_at[id(unit)], x = known[key]
                    channels[x] = unit.run(self.features[id(unit)]).shape[1]
                    self.gives_at[id(unit)] = x
            elif isinstance(step, Classify):
                self.taps["classify", id(step)] = graph.place(super().classify(step), x, "exit")
            elif isinstance(step, Head):
                key = ("head", id(step.form.model))
                if key not in known:
                    known[key] = x, graph.place(super().head(step), x, "head")
                self.taps["head", id(step)] = known[key][1]
            elif isinstance(step.decider, LearnedDecider):
                self.taps["summary", id(step)] = graph.place(super().summary(step), x, "summary")
        taps = {*self.taps.values(), *channels}
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *network.spec.input_size])
        outputs = [helper.make_tensor_value_info(tap, TensorProto.FLOAT, None) for tap in sorted(taps)]
        whole = helper.make_graph(graph.nodes, "dense", [images], outputs, graph.tensors)
        model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        self.whole = OptimizedGraph(model, channels)

    def _place_unit(self, graph: Graph, unit: ResidualUnit, x: str) -> str:
        """Add a unit, and all that it can give by other sinks; returns what it gives if it runs."""
        skip = super().skip(unit) if unit.decides or unit.dropped else None
        if unit.decides:
            self.taps["pool", id(unit)] = graph.place(super().pool(unit), x, "pooled")
        if skip is not None:
            self.taps["skip", id(unit)] = graph.place(skip, x, "skipped")
        for sink in range(1, len(unit.sinks) - 1):
            self.taps[f"take {sink}", id(unit)] = graph.place(super().take(unit, sink), x, "branch")
        if unit.computes and not unit.dropped:
            return graph.place(super().run(unit), x, unit.name)
        return self.taps.get(("skip", id(unit)), x)

    def stem(self, step: Stem) -> Piece:
        """Images, plain -> the features that the first unit reads."""
        return self.whole.cut("images", self.whole.own(self.gives_at[id(step)]))

    def run(self, unit: ResidualUnit) -> Piece:
        """Features -> what the unit gives if it runs."""
        return self.whole.cut(self._before(unit), self._after(unit))

    def take(self, unit: ResidualUnit, sink: int) -> Piece:
        """Features -> what the unit gives by a sink, in the layout of what it gives if it runs."""
        if sink == 0:
            return self.run(unit)
        taken = self.taps[f"take {sink}", id(unit)]
        return self.whole.cut(self._before(unit), self.whole.like(self._after(unit), taken))

    def skip(self, unit: ResidualUnit) -> Piece | None:
        """Features -> what the unit gives by default, in the layout of what it gives if it runs."""
        before, after = self._before(unit), self._after(unit)
        if unit.keeps and self.whole.is_blocked(before) == self.whole.is_blocked(after):
            return None
        target = self.reads_at[id(unit)] if unit.keeps else self.taps["skip", id(unit)]
        return self.whole.cut(before, self.whole.like(after, target))

    def pool(self, unit: ResidualUnit) -> Piece:
        """The features that a unit reads -> their average over the image `[N, C]`, plain."""
        piece = self.whole.cut(self._before(unit), self.taps["pool", id(unit)])
        if self.features[id(unit)].shape[1] % LARGEST_BLOCK:
            return piece
        # Of a single pixel, whole blocks in their order are the plain layout.
        same = {node.output[0]: node.input[0] for node in piece.nodes if reorders(node, "ReorderOutput")}
        nodes = [node for node in piece.nodes if not reorders(node, "ReorderOutput")]
        for node in nodes:
            node.input[:] = [same.get(value, value) for value in node.input]
        return replace(piece, nodes=nodes)

    def plain(self, unit: ResidualUnit) -> Piece | None:
        """The features that a unit reads -> the same, plain."""
        before = self._before(unit)
        if not self.whole.is_blocked(before):
            return None
        return self.whole.cut(before, self.whole.to_plain(self.reads_at[id(unit)]))

    def classify(self, step: Classify) -> Piece:
        """Features -> an exit's logits `[N, classes]`, plain."""
        return self._tap("classify", step)

    def summary(self, step: Stop) -> Piece:
        """Features -> what a router that decides to stop gets of them `[N, S]`, plain."""
        return self._tap("summary", step)

    def head(self, step: Head) -> Piece:
        """Features -> logits `[N, classes]`, plain."""
        return self._tap("head", step)

    def _tap(self, what: str, step: Step) -> Piece:
        return self.whole.cut(self.whole.own(self.reads_at[id(step)]), self.taps[what, id(step)])

    def _before(self, unit: ResidualUnit) -> str:
        """The features that a unit reads, as they travel."""
        return self.whole.own(self.reads_at[id(unit)])

    def _after(self, unit: ResidualUnit) -> str:
        """What it gives, as it travels."""
        return self.whole.own(self.gives_at[id(unit)])
