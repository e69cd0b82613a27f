"""Parts as onnxruntime's optimiser leaves them: fused, and in the blocked layout of this machine's CPU family.

Inside the branches of an `If`, onnxruntime applies neither its blocked layout (NCHWc) nor the fusions that come with
it, so that an executed unit costs twice its price in a dense graph. Here the dense graph is optimised as a whole, cut
at the borders of the units, and put together again with branches. The layout is that of a CPU family and of a version
of onnxruntime: `layout` says which.
"""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from routekit.backbones.unit import ResidualUnit
from routekit.export.onnx.graph import Graph
from routekit.export.onnx.parts import Parts
from routekit.export.onnx.piece import OPSET, Exporter, Piece
from routekit.network.exits import Exit
from routekit.network.network import RoutedNetwork

BLOCKED = "com.microsoft.nchwc"
# Channels that are kept together, on the CPUs with the widest registers; on others, a half or a quarter of it.
LARGEST_BLOCK = 16


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
        self._read(optimized(helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)))

    def stem(self) -> Piece:
        """Images, plain -> the features that the first unit reads."""
        return self._cut("images", self._own(self.borders[self.network.view.units[0].name]))

    def run(self, unit: ResidualUnit) -> Piece:
        """Features -> what the unit gives if it runs."""
        return self._cut(self._before(unit), self._own(self._after(unit)))

    def take(self, unit: ResidualUnit, sink: int) -> Piece:
        """Features -> what the unit gives by a sink, in the layout of what it gives if it runs."""
        if sink == 0:
            return self.run(unit)
        target, blocked = self.taken[f"{unit.name}/{sink}"], self._is_blocked(self._own(self._after(unit)))
        return self._cut(self._before(unit), self._to_blocked(target) if blocked else self._to_plain(target))

    def skip(self, unit: ResidualUnit) -> Piece | None:
        """Features -> what the unit gives by default, in the layout of what it gives if it runs."""
        before, blocked = self._before(unit), self._is_blocked(self._own(self._after(unit)))
        if unit.keeps and self._is_blocked(before) == blocked:
            return None
        target = self.borders[unit.name] if unit.keeps else self.skipped[unit.name]
        return self._cut(before, self._to_blocked(target) if blocked else self._to_plain(target))

    def pool(self, unit: ResidualUnit) -> Piece:
        """The features that a unit reads -> their average over the image [N, C], plain."""
        piece = self._cut(self._before(unit), self.pooled[unit.name])
        if self.features[unit.name].shape[1] % LARGEST_BLOCK:
            return piece
        # Of a single pixel, whole blocks in their order are the plain layout.
        same = {node.output[0]: node.input[0] for node in piece.nodes if _is(node, "ReorderOutput")}
        nodes = [node for node in piece.nodes if not _is(node, "ReorderOutput")]
        for node in nodes:
            node.input[:] = [same.get(value, value) for value in node.input]
        return replace(piece, nodes=nodes)

    def plain(self, unit: ResidualUnit) -> Piece | None:
        """The features that a unit reads -> the same, plain."""
        before = self._before(unit)
        return self._cut(before, self._to_plain(self.borders[unit.name])) if self._is_blocked(before) else None

    def exit(self, leaving: Exit) -> Piece:
        """Features -> [N, classes + 1], plain: what an exit says, and by how much each image prefers to go on."""
        unit = next(unit for unit in self.network.view.units if unit.name == leaving.after)
        return self._cut(self._own(self._after(unit)), self.told[leaving.after])

    def head(self) -> Piece:
        """Features -> logits [N, classes], plain."""
        return self._cut(self._own(self.end), self.logits)

    def _read(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def _before(self, unit: ResidualUnit) -> str:
        return self._own(self.borders[unit.name])

    def _after(self, unit: ResidualUnit) -> str:
        names = [each.name for each in self.network.view.units]
        place = names.index(unit.name) + 1
        return self.borders[names[place]] if place < len(names) else self.end

    def _own(self, border: str) -> str:
        """The features at a border in the layout in which they travel: blocked, if a convolution beside it is."""
        maker = self.makers[border]
        if _is(maker, "ReorderOutput"):
            return str(maker.input[0])
        readers = [node for node in self.nodes if border in node.input and _is(node, "ReorderInput")]
        return readers[0].output[0] if readers else border

    def _is_blocked(self, value: str) -> bool:
        return self.makers[value].domain == BLOCKED and not _is(self.makers[value], "ReorderOutput")

    def _to_blocked(self, plain: str) -> str:
        """The blocked form of a plain value; the node that makes it is added where there is none."""
        own = self._own(plain)
        return own if own != plain else self._add("ReorderInput", plain, channels_last=0)

    def _to_plain(self, value: str) -> str:
        """The plain form of a value, made from the form in which it travels."""
        own = self._own(value)
        if own == value or _is(self.makers[value], "ReorderOutput"):
            return value
        channels = next(self.features[name].shape[1] for name, border in self.borders.items() if border == value)
        return self._add("ReorderOutput", own, channels=channels, channels_last=0)

    def _add(self, kind: str, source: str, **attributes: Any) -> str:
        target = f"{source}/{kind}"
        self.makers[target] = helper.make_node(kind, [source], [target], domain=BLOCKED, **attributes)
        return target

    def _cut(self, source: str, target: str) -> Piece:
        """Return what computes one value from another."""
        plain = {self._own(border): border for border in self.borders.values()}.get(source, source)
        nodes: list[NodeProto] = []
        tensors: dict[str, TensorProto] = {}
        made = {source, ""}

        def make(value: str) -> None:
            if value in made:
                return
            made.add(value)
            if value in self.tensors:
                tensors[value] = self.tensors[value]
            elif value == plain and not _is(self.makers[value], "ReorderOutput"):
                # The whole graph makes the blocked form of it; here, where they travel blocked, it is the other way.
                again = self._to_plain(value)
                make(again)
                nodes.append(helper.make_node("Identity", [again], [value]))
            else:
                for read in self.makers[value].input:
                    make(read)
                nodes.append(self.makers[value])
                made.update(nodes[-1].output)

        make(target)
        return Piece(nodes, list(tensors.values()), source, target)


def _is(node: NodeProto, kind: str) -> bool:
    return node.domain == BLOCKED and node.op_type == kind


def optimized(model: ModelProto) -> ModelProto:
    """Let onnxruntime optimise a model for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that the result is for this machine only: that is the intention
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def layout() -> str:
    """Name the layout in which onnxruntime keeps weights on this machine: equal names, equal layouts."""
    channels = 64
    weight = np.arange(channels * channels * 9, dtype=np.float32).reshape(channels, channels, 3, 3)
    conv = helper.make_node("Conv", ["x", "weight"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, None, None]) for name in "xy"]
    graph = helper.make_graph([conv], "probe", value[:1], value[1:], [numpy_helper.from_array(weight, "weight")])
    probe = optimized(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)).graph
    digest = hashlib.sha256()
    for node in probe.node:
        digest.update(f"{node.domain}:{node.op_type};".encode())
    for tensor in probe.initializer:
        digest.update(numpy_helper.to_array(tensor).tobytes())
    return f"onnxruntime {onnxruntime.__version__}, {digest.hexdigest()[:12]}"
