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
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.optimized import BLOCKED, LARGEST_BLOCK, OptimizedGraph, reorders
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import OPSET, Exporter, Piece
from routekit.network.deciders import LearnedDecider
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Interpreter, Stem, Step, Stop, Units, View


class NativeParts(Parts):
    """Pieces of the optimised dense graph; features travel between them in the layout in which they are computed.

    `reads_at` and `gives_at` name, in that graph, what a step or a unit reads and gives when everything runs.
    """

    domains = (BLOCKED, "com.microsoft")

    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        super().__init__(network, exporter)
        graph = Graph()
        self.graph = graph
        self.reads_at: dict[int, str] = {}
        self.gives_at: dict[int, str] = {}
        self.taps: dict[tuple[str, int], str] = {}
        self.channels: dict[str, int] = {}
        self.x = self.shared = "images"
        # A pass on the mirrored image computes the same of another one: its pieces are those of the pass before it.
        self.known: dict[tuple[Any, ...], str] = {}
        for step in network.steps:
            self.reads_at[id(step)] = self.x
            placed([step], self)
        channels = self.channels
        taps = {*self.taps.values(), *channels}
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *network.spec.input_size])
        outputs = [helper.make_tensor_value_info(tap, TensorProto.FLOAT, None) for tap in sorted(taps)]
        whole = helper.make_graph(graph.nodes, "dense", [images], outputs, graph.tensors)
        model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        self.whole = OptimizedGraph(model, channels)

    def once(self, piece: Piece, hint: str, *key: Any) -> str:
        """Add a piece that reads the present features, unless it is there; returns what it gives."""
        if key not in self.known:
            self.known[key] = self.graph.place(piece, self.x, hint)
        return self.known[key]

    def place_unit(self, unit: ResidualUnit) -> str:
        """Add a unit, and all that it can give by other sinks; returns what it gives if it runs."""
        graph, x = self.graph, self.x
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


placed: Interpreter[NativeParts] = Interpreter("native ONNX")


@placed.on(View)
def _view(step: View, parts: NativeParts) -> None:  # noqa: ARG001 - however an image is seen, pieces are the same
    parts.x = "images"


@placed.on(Stem)
def _stem(step: Stem, parts: NativeParts) -> None:
    if step.shared:
        parts.x = parts.shared
    else:
        parts.x = parts.shared = parts.once(Parts.stem(parts, step), "stem", "stem", id(step.form.model))
        parts.channels[parts.x] = step.form.stem(parts.reads[id(step)]).shape[1]
    parts.gives_at[id(step)] = parts.x


@placed.on(Units)
def _units(step: Units, parts: NativeParts) -> None:
    for unit in step.units:
        key = ("unit", id(unit.block), unit.dropped)
        if key not in parts.known:
            parts.known[key] = parts.place_unit(unit)
            parts.known["reads", *key] = parts.x
        parts.reads_at[id(unit)], parts.x = parts.known["reads", *key], parts.known[key]
        parts.channels[parts.x] = parts.gives[id(unit)].shape[1]
        parts.gives_at[id(unit)] = parts.x


@placed.on(Classify)
def _classify(step: Classify, parts: NativeParts) -> None:
    parts.taps["classify", id(step)] = parts.graph.place(Parts.classify(parts, step), parts.x, "exit")


@placed.on(Stop)
def _stop(step: Stop, parts: NativeParts) -> None:
    if isinstance(step.decider, LearnedDecider):
        parts.taps["summary", id(step)] = parts.graph.place(Parts.summary(parts, step), parts.x, "summary")


@placed.on(Head)
def _head(step: Head, parts: NativeParts) -> None:
    parts.taps["head", id(step)] = parts.once(Parts.head(parts, step), "head", "head", id(step.form.model))
