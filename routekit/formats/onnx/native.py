"""Parts as onnxruntime's optimiser makes them: fused, and in the blocked layout of this machine's CPU family.

Inside the branches of an `If`, onnxruntime applies neither its blocked layout (NCHWc) nor the fusions that come with
it, so that an executed unit costs twice its price in a dense graph. Here the dense graph is optimised as a whole, cut
at the borders of the units, and put together again with branches. The layout is that of a CPU family and of a version
of onnxruntime, which `layout` names.
"""

from collections.abc import Sequence
from dataclasses import replace

from onnx import GraphProto, TensorProto, helper

from routekit.backbones.unit import ResidualUnit
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.optimized import BLOCKED, LARGEST_BLOCK, OptimizedGraph, reorders
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import Exporter
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Interpreter, Stem, Stop, Units, View


class NativeParts(Parts):
    """Pieces of the optimised dense graph; features travel between them in the layout in which they are computed.

    `reads_at` and `gives_at` name, in that graph, what a step or a unit reads, and what a step, or a sink of a unit,
    gives when everything runs.
    """

    domains = ((BLOCKED, 1), ("com.microsoft", 1))

    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        super().__init__(network, exporter)
        self.graph = Graph()
        self.reads_at: dict[int, str] = {}
        self.gives_at: dict[tuple[int, int | str], str] = {}
        self.x = self.shared = "images"
        self.known: dict[tuple[str, bytes], str] = {}
        placed(network.steps, self)
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", *network.spec.input_size])
        taps = [
            helper.make_tensor_value_info(tap, TensorProto.FLOAT, None) for tap in sorted({*self.gives_at.values()})
        ]
        self.whole = OptimizedGraph(helper.make_graph(self.graph.nodes, "dense", [images], taps, self.graph.tensors))

    def add(self, piece: GraphProto | None, hint: str) -> str:
        """Add a piece that reads the present features.

        Args:
            piece: What is added. A pass on the mirrored image computes the same of another one: what is there already
                is not added again.
            hint: How the name of what it gives begins.

        Returns:
            The name of what it gives.
        """
        key = (self.x, b"" if piece is None else piece.SerializeToString(deterministic=True))
        if key not in self.known:
            self.known[key] = self.graph.place(piece, hint, self.x)
        return self.known[key]

    def of_step(self, step: Stem | Classify | Head | Stop) -> GraphProto | None:
        """What a step computes: a stem gives features as they travel, the others give plain values."""
        after = self.gives_at[id(step), 0]
        if isinstance(step, Stem):
            return self.whole.cut(self.reads_at[id(step)], self.whole.own(after))
        before = self.reads_at[id(step)]
        return None if before == after else self.whole.cut(self.whole.own(before), after)

    def run(self, units: Sequence[ResidualUnit]) -> GraphProto | None:
        """Features -> what leaves units in a row that always run, as these travel."""
        before, after = self._before(units[0]), self.whole.own(self.gives_at[id(units[-1]), 0])
        return None if before == after else self.whole.cut(before, after)

    def take(self, unit: ResidualUnit, sink: int) -> GraphProto | None:
        """Features -> what leaves a unit by one of its sinks, in the layout of what the unit gives if it runs.

        Args:
            unit: The unit.
            sink: 0 is the dearest sink, -1 the default.

        Returns:
            The piece; None if it is the features themselves, in that layout.
        """
        before, runs = self._before(unit), self.whole.own(self.gives_at[id(unit), 0])
        target = self.whole.like(runs, self.gives_at[id(unit), sink % len(unit.sinks)])
        return None if target == before else self.whole.cut(before, target)

    def pool(self, unit: ResidualUnit) -> GraphProto:
        """The features that a unit reads -> their average over the image `[N, C]`, plain."""
        piece = self.whole.cut(self._before(unit), self.gives_at[id(unit), "pool"])
        if self.reads[id(unit)].shape[1] % LARGEST_BLOCK == 0:
            for node in piece.node:
                if reorders(node, "ReorderOutput"):
                    # Of a single pixel, whole blocks in their order are the plain layout.
                    node.CopyFrom(helper.make_node("Identity", node.input, node.output, name=node.output[0]))
        return piece

    def plain(self, unit: ResidualUnit) -> GraphProto | None:
        """The features that a unit reads -> the same, plain; None if that is what they are."""
        before = self._before(unit)
        target = self.whole.to_plain(self.reads_at[id(unit)])
        return None if target == before else self.whole.cut(before, target)

    def _before(self, unit: ResidualUnit) -> str:
        """The features that a unit reads, as they travel."""
        return self.whole.own(self.reads_at[id(unit)])


placed: Interpreter[NativeParts] = Interpreter("native ONNX")


@placed.on(View)
def _view(step: View, parts: NativeParts) -> None:
    # However an image is seen, pieces are the same, but for its size.
    parts.x = "images"
    if step.resolution is not None:
        parts.x = parts.gives_at[id(step), 0] = parts.add(Parts.view(parts, replace(step, mirrored=False)), "view")


@placed.on(Classify, Stop, Head)
def _tap(step: Classify | Stop | Head, parts: NativeParts) -> None:
    parts.reads_at[id(step)] = parts.x
    parts.gives_at[id(step), 0] = parts.add(Parts.of_step(parts, step), type(step).__name__)


@placed.on(Stem)
def _stem(step: Stem, parts: NativeParts) -> None:
    parts.reads_at[id(step)] = parts.x
    if not step.shared:
        parts.shared = parts.gives_at[id(step), 0] = parts.add(Parts.of_step(parts, step), "stem")
    parts.x = parts.shared


@placed.on(Units)
def _units(step: Units, parts: NativeParts) -> None:
    for unit in step.units:
        parts.reads_at[id(unit)] = parts.x
        if unit.decides:
            parts.gives_at[id(unit), "pool"] = parts.add(Parts.pool(parts, unit), "pooled")
        for sink in range(len(unit.sinks)):
            parts.gives_at[id(unit), sink] = parts.add(Parts.take(parts, unit, sink), unit.name)
        parts.x = parts.gives_at[id(unit), 0]
