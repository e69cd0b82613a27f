"""A graph as onnxruntime's optimiser makes it on this machine, and pieces that are cut from it."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from routekit.formats.onnx.piece import IR_VERSION, OPSET, piece_of
from routekit.formats.onnx.session import open_session

BLOCKED = "com.microsoft.nchwc"
# Channels that are kept together, on the CPUs with the widest registers; on others, a half or a quarter of it.
LARGEST_BLOCK = 16


class OptimizedGraph:
    """The nodes of an optimised graph, in which features are plain (NCHW) or blocked (NCHWc).

    The outputs of the graph are the borders at which pieces meet. Each has one form in which it travels from piece to
    piece, its own: blocked, if a convolution beside it is.
    """

    def __init__(self, graph: GraphProto) -> None:
        optimised = optimized(graph)
        self.nodes = list(optimised.node)
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.tensors = {tensor.name: tensor for tensor in optimised.initializer}
        shapes = {output.name: output.type.tensor_type.shape.dim for output in optimised.output}
        self.channels = {border: shape[1].dim_value for border, shape in shapes.items()}
        self.borders = {self.own(border): border for border in self.channels}

    def own(self, border: str) -> str:
        """The features at a border in the layout in which they travel."""
        maker = self.makers[border]
        if reorders(maker, "ReorderOutput"):
            return str(maker.input[0])
        readers = (node.output[0] for node in self.nodes if border in node.input and reorders(node, "ReorderInput"))
        return next(readers, border)

    def is_blocked(self, value: str) -> bool:
        """Whether the form `value` is blocked."""
        return self.makers[value].domain == BLOCKED and not reorders(self.makers[value], "ReorderOutput")

    def like(self, other: str, value: str) -> str:
        """Find the form of a value that is in the layout of another.

        Args:
            other: Another value, as it travels.
            value: A border.

        Returns:
            The name of the blocked form if `other` is blocked, and else of the plain form.
        """
        if not self.is_blocked(other):
            return self.to_plain(value)
        own = self.own(value)
        return own if own != value else self._add("ReorderInput", value, channels_last=0)

    def to_plain(self, value: str) -> str:
        """The plain form of a border, made from the form in which it travels."""
        own = self.own(value)
        if own == value or reorders(self.makers[value], "ReorderOutput"):
            return value
        return self._add("ReorderOutput", own, channels=self.channels[value], channels_last=0)

    def _add(self, kind: str, source: str, **attributes: Any) -> str:
        target = f"{source}/{kind}"
        self.makers[target] = helper.make_node(kind, [source], [target], name=target, domain=BLOCKED, **attributes)
        return target

    def cut(self, source: str, target: str) -> GraphProto:
        """Return what computes one value from another.

        Args:
            source: "images", or a border as it travels.
            target: The name of a value behind it.

        Returns:
            The piece.
        """
        plain = self.borders.get(source, source)
        nodes: list[NodeProto] = []
        tensors: dict[str, TensorProto] = {}
        made = {source, ""}

        def make(value: str) -> None:
            if value in made:
                return
            made.add(value)
            if value in self.tensors:
                tensors[value] = self.tensors[value]
            elif value == plain and not reorders(self.makers[value], "ReorderOutput"):
                # The whole graph makes the blocked form from the plain one. Features travel blocked: it is reversed.
                again = self.to_plain(value)
                make(again)
                nodes.append(helper.make_node("Identity", [again], [value], name=value))
            else:
                for read in self.makers[value].input:
                    make(read)
                nodes.append(self.makers[value])
                made.update(nodes[-1].output)

        make(target)
        return piece_of(nodes, list(tensors.values()), source, target)


def reorders(node: NodeProto, kind: str) -> bool:
    """Tell whether a node changes between the two forms.

    Args:
        node: The node.
        kind: "ReorderInput" to the blocked form, or "ReorderOutput" to the plain one.

    Returns:
        Whether that is its operator.
    """
    return node.domain == BLOCKED and node.op_type == kind


def optimized(graph: GraphProto) -> GraphProto:
    """Let onnxruntime optimise a graph in standard operators for this machine."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        open_session(model.SerializeToString(), optimized_model_filepath=str(file))
        return onnx.load(str(file)).graph


def layout() -> str:
    """Name the layout in which onnxruntime keeps weights on this machine: equal names, equal layouts."""
    channels = 64
    weight = np.arange(channels * channels * 9, dtype=np.float32).reshape(channels, channels, 3, 3)
    conv = helper.make_node("Conv", ["x", "weight"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, None, None]) for name in "xy"]
    graph = helper.make_graph([conv], "probe", value[:1], value[1:], [numpy_helper.from_array(weight, "weight")])
    probe = optimized(graph)
    digest = hashlib.sha256()
    for node in probe.node:
        digest.update(f"{node.domain}:{node.op_type};".encode())
    for tensor in probe.initializer:
        digest.update(numpy_helper.to_array(tensor).tobytes())
    return f"onnxruntime {onnxruntime.__version__}, {digest.hexdigest()[:12]}"
