"""A graph as onnxruntime's optimiser leaves it on this machine, and pieces that are cut from it."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from routekit.formats.onnx.piece import OPSET, Piece

BLOCKED = "com.microsoft.nchwc"
# Channels that are kept together, on the CPUs with the widest registers; on others, a half or a quarter of it.
LARGEST_BLOCK = 16


class OptimizedGraph:
    """The nodes of an optimised model, in which features are plain (NCHW) or blocked (NCHWc).

    `borders` are the values at which pieces meet, with their channels. Each has one form in which it travels from piece
    to piece, its own: blocked, if a convolution beside it is.
    """

    def __init__(self, model: ModelProto, borders: Mapping[str, int]) -> None:
        optimised = optimized(model).graph
        self.borders = dict(borders)
        self.nodes = list(optimised.node)
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.tensors = {tensor.name: tensor for tensor in optimised.initializer}

    def own(self, border: str) -> str:
        """The features at a border in the layout in which they travel: blocked, if a convolution beside it is."""
        maker = self.makers[border]
        if reorders(maker, "ReorderOutput"):
            return str(maker.input[0])
        readers = [node for node in self.nodes if border in node.input and reorders(node, "ReorderInput")]
        return readers[0].output[0] if readers else border

    def is_blocked(self, value: str) -> bool:
        """Whether the form `value` is blocked."""
        return self.makers[value].domain == BLOCKED and not reorders(self.makers[value], "ReorderOutput")

    def like(self, other: str, value: str) -> str:
        """The form of `value` that is blocked if `other` is, and else plain."""
        return self.to_blocked(value) if self.is_blocked(other) else self.to_plain(value)

    def to_blocked(self, plain: str) -> str:
        """The blocked form of a plain value; the node that makes it is added where there is none."""
        own = self.own(plain)
        return own if own != plain else self._add("ReorderInput", plain, channels_last=0)

    def to_plain(self, value: str) -> str:
        """The plain form of a value, made from the form in which it travels."""
        own = self.own(value)
        if own == value or reorders(self.makers[value], "ReorderOutput"):
            return value
        return self._add("ReorderOutput", own, channels=self.borders[value], channels_last=0)

    def _add(self, kind: str, source: str, **attributes: Any) -> str:
        target = f"{source}/{kind}"
        self.makers[target] = helper.make_node(kind, [source], [target], domain=BLOCKED, **attributes)
        return target

    def cut(self, source: str, target: str) -> Piece:
        """Return what computes one value from another."""
        plain = {self.own(border): border for border in self.borders}.get(source, source)
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
                # The whole graph makes the blocked form of it; here, where they travel blocked, it is the other way.
                again = self.to_plain(value)
                make(again)
                nodes.append(helper.make_node("Identity", [again], [value]))
            else:
                for read in self.makers[value].input:
                    make(read)
                nodes.append(self.makers[value])
                made.update(nodes[-1].output)

        make(target)
        return Piece(nodes, list(tensors.values()), source, target)


def reorders(node: NodeProto, kind: str) -> bool:
    """Whether a node changes between the two forms, by that operator."""
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
