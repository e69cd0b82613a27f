"""Parts as onnxruntime's optimiser leaves them: fused, and in the blocked layout of this machine's CPU family.

Inside the branches of an `If`, onnxruntime applies neither its blocked layout (NCHWc) nor the fusions that come with
it, so that an executed unit costs twice its price in a dense graph. Here the dense graph is optimised as a whole, cut
at the borders of the units, and put together again with branches. The layout is that of a CPU family and of a version
of onnxruntime: `layout` says which.
"""

from dataclasses import replace

from onnx import TensorProto, helper

from routekit.backbones.unit import ResidualUnit
from routekit.export.onnx.graph import Graph
from routekit.export.onnx.optimized import BLOCKED, LARGEST_BLOCK, OptimizedGraph, reorders
from routekit.export.onnx.parts import Parts
from routekit.export.onnx.piece import OPSET, Exporter, Piece
from routekit.network.exits import Exit
from routekit.network.network import RoutedNetwork


class NativeParts(Parts):
    """Pieces of the optimised dense graph; features travel between them in the layout in which they are computed."""

    domains = (BLOCKED, "com.microsoft")

    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        super().__init__(network, exporter)
        graph, view = Graph(), network.view
        self.borders: dict[str, str] = {}
        self.pooled: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.told: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        x = graph.place(super().stem(), "images", "stem")
        for unit in view.units:
            self.borders[unit.name] = x
            if unit.decides:
                self.pooled[unit.name] = graph.place(super().pool(unit), x, "pooled")
            skip = super().skip(unit) if unit.decides or unit.dropped else None
            if skip is not None:
                self.skipped[unit.name] = graph.place(skip, x, "skipped")
            for sink in range(1, len(unit.sinks) - 1):
                self.taken[f"{unit.name}/{sink}"] = graph.place(super().take(unit, sink), x, "branch")
            if unit.computes and not unit.dropped:
                x = graph.place(super().run(unit), x, unit.name)
            elif skip is not None:
                x = self.skipped[unit.name]
            leaving = network.exit_after(unit)
            if leaving is not None:
                self.told[leaving.after] = graph.place(super().exit(leaving), x, "exit")
        self.end = x
        self.logits = graph.place(super().head(), x, "head")
        inner = (self.borders, self.pooled, self.skipped, self.told, self.taken)
        taps = {*(tap for each in inner for tap in each.values()), self.end, self.logits}
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *view.spec.input_size])
        outputs = [helper.make_tensor_value_info(tap, TensorProto.FLOAT, None) for tap in sorted(taps)]
        whole = helper.make_graph(graph.nodes, "dense", [images], outputs, graph.tensors)
        model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        channels = {border: self.features[name].shape[1] for name, border in self.borders.items()}
        self.whole = OptimizedGraph(model, channels)

    def stem(self) -> Piece:
        """Images, plain -> the features that the first unit reads."""
        return self.whole.cut("images", self._before(self.network.view.units[0]))

    def run(self, unit: ResidualUnit) -> Piece:
        """Features -> what the unit gives if it runs."""
        return self.whole.cut(self._before(unit), self._after(unit))

    def take(self, unit: ResidualUnit, sink: int) -> Piece:
        """Features -> what the unit gives by a sink, in the layout of what it gives if it runs."""
        if sink == 0:
            return self.run(unit)
        return self.whole.cut(self._before(unit), self.whole.like(self._after(unit), self.taken[f"{unit.name}/{sink}"]))

    def skip(self, unit: ResidualUnit) -> Piece | None:
        """Features -> what the unit gives by default, in the layout of what it gives if it runs."""
        before, after = self._before(unit), self._after(unit)
        if unit.keeps and self.whole.is_blocked(before) == self.whole.is_blocked(after):
            return None
        target = self.borders[unit.name] if unit.keeps else self.skipped[unit.name]
        return self.whole.cut(before, self.whole.like(after, target))

    def pool(self, unit: ResidualUnit) -> Piece:
        """The features that a unit reads -> their average over the image [N, C], plain."""
        piece = self.whole.cut(self._before(unit), self.pooled[unit.name])
        if self.features[unit.name].shape[1] % LARGEST_BLOCK:
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
        return self.whole.cut(before, self.whole.to_plain(self.borders[unit.name]))

    def exit(self, leaving: Exit) -> Piece:
        """Features -> [N, classes + 1], plain: what an exit says, and by how much each image prefers to go on."""
        unit = next(unit for unit in self.network.view.units if unit.name == leaving.after)
        return self.whole.cut(self._after(unit), self.told[leaving.after])

    def head(self) -> Piece:
        """Features -> logits [N, classes], plain."""
        return self.whole.cut(self.whole.own(self.end), self.logits)

    def _before(self, unit: ResidualUnit) -> str:
        """The features that a unit reads, as they travel."""
        return self.whole.own(self.borders[unit.name])

    def _after(self, unit: ResidualUnit) -> str:
        """What it gives, as it travels."""
        names = [each.name for each in self.network.view.units]
        place = names.index(unit.name) + 1
        return self.whole.own(self.borders[names[place]] if place < len(names) else self.end)
