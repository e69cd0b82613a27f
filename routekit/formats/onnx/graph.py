"""An ONNX graph under construction."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from routekit.formats.onnx.piece import Piece


class Graph:
    """Nodes and constants under construction; every value has its own name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.count = 0
        # Passes share weights: what is equal is stored once.
        self._known: dict[tuple[int, tuple[int, ...], bytes], str] = {}

    def _store(self, tensor: TensorProto) -> str:
        """Add a tensor unless an equal one is there; returns the name of the one that is."""
        value = numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest())
        if key not in self._known:
            self._known[key] = tensor.name
            self.tensors.append(tensor)
        return self._known[key]

    def fresh(self, hint: str) -> str:
        """Return a name that no value has yet."""
        self.count += 1
        return f"{hint}.{self.count}"

    def constant(self, value: Any) -> str:
        """Add a constant, int64 or float32, and return its name."""
        name, array = self.fresh("constant"), np.asarray(value)
        dtype = np.int64 if array.dtype.kind == "i" else np.float32
        return self._store(numpy_helper.from_array(np.asarray(array, dtype=dtype, order="C"), name))

    def add(self, kind: str, *inputs: str, outputs: int = 1, hint: str = "", **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or the list of them."""
        names = [self.fresh(hint or kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=names[0], **attributes))
        return names[0] if outputs == 1 else names

    def rows(self, chosen: str) -> str:
        """Add what finds the indices [k, 1] of the k images that are chosen [N]."""
        return str(self.add("Transpose", self.add("NonZero", chosen), perm=[1, 0]))

    def anyone(self, chosen: str) -> str:
        """Add what says whether any of the images is chosen [N]."""
        most = self.add("ReduceMax", self.add("Cast", chosen, to=TensorProto.INT32), self.constant([0]), keepdims=0)
        return str(self.add("Cast", most, to=TensorProto.BOOL))

    def mirrored(self, images: str) -> str:
        """Add what turns images [N, C, H, W] left to right."""
        start, end, axis, step = (self.constant([each]) for each in (-1, np.iinfo(np.int64).min, 3, -1))
        return str(self.add("Slice", images, start, end, axis, step))

    def place(self, piece: Piece, source: str, hint: str) -> str:
        """Add a piece that reads `source`; returns the name of its output."""
        target = self.fresh(hint)
        placed = piece.place(target, source, target)
        same = {tensor.name: self._store(tensor) for tensor in placed.tensors}
        for node in placed.nodes:
            node.input[:] = [same.get(name, name) for name in node.input]
        self.nodes += placed.nodes
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
