"""An ONNX graph under construction."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, compose, helper, numpy_helper


class Graph:
    """Nodes and constants under construction; every value has its own name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.count = 0
        # Passes share weights: what is equal is stored once.
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def _store(self, tensor: TensorProto) -> str:
        """Add a tensor unless an equal one is there; returns the name of the one that is."""
        value = numpy_helper.to_array(tensor)
        key = (value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).digest())
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
        array = np.asarray(value)
        array = np.asarray(array, dtype=np.int64 if array.dtype.kind == "i" else np.float32, order="C")
        return self._store(numpy_helper.from_array(array, self.fresh("constant")))

    def add(self, kind: str, *inputs: str, hint: str = "", **attributes: Any) -> str:
        """Add a node.

        Args:
            kind: The operator.
            inputs: The names of what it reads.
            hint: How its output's name begins; by default as the operator is called.
            attributes: Of the operator.

        Returns:
            The name of its output.
        """
        name = self.fresh(hint or kind)
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def rows(self, chosen: str) -> str:
        """Add what finds the indices `[k, 1]` of the k images that are chosen `[N]`."""
        return self.add("Transpose", self.add("NonZero", chosen), perm=[1, 0])

    def anyone(self, chosen: str) -> str:
        """Add what finds whether any of the images is chosen `[N]`."""
        most = self.add("ReduceMax", self.add("Cast", chosen, to=TensorProto.INT32), self.constant([0]), keepdims=0)
        return self.add("Cast", most, to=TensorProto.BOOL)

    def slice(self, value: str, start: int, stop: int) -> str:
        """Add what takes some columns of a value.

        Args:
            value: The name of a value `[N, n]`.
            start: The first column; counted from the end if it is negative.
            stop: The column behind the last one.

        Returns:
            The name of the columns `[N, m]`.
        """
        return self.add("Slice", value, *(self.constant([bound]) for bound in (start, stop, 1)))

    def place(self, piece: GraphProto | None, hint: str, *sources: str) -> str:
        """Add a piece.

        Args:
            piece: A graph with one output. None changes nothing.
            hint: How its output's name begins.
            sources: What it reads.

        Returns:
            The name of its output.
        """
        if piece is None:
            return sources[0]
        target = self.fresh(hint)
        placed = compose.add_prefix_graph(piece, f"{target}/")
        names = {tensor.name: self._store(tensor) for tensor in placed.initializer}
        names |= {value.name: source for value, source in zip(placed.input, sources, strict=True)}
        names[placed.output[0].name] = target
        for node in placed.node:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]
        self.nodes += placed.node
        return target

    def choose(
        self, condition: str, then: Callable[[], list[str]], otherwise: Callable[[], list[str]], hint: str
    ) -> list[str]:
        """Add an `If`; constants stay in the outer graph.

        Args:
            condition: The name of a boolean.
            then: Adds the nodes of one branch; returns the names of what it gives.
            otherwise: Likewise, of the other branch, which gives as many values.
            hint: How the names of the results begin.

        Returns:
            The names of the results.
        """
        outer, graphs = self.nodes, []
        for name, build in (("then", then), ("else", otherwise)):
            self.nodes = []
            # What a branch gives must be made in it.
            values = build()
            made = {output for node in self.nodes for output in node.output}
            values = [value if value in made else self.add("Identity", value) for value in values]
            outputs = [helper.make_empty_tensor_value_info(value) for value in values]
            graphs.append(helper.make_graph(self.nodes, f"{hint}/{name}", [], outputs))
        self.nodes = outer
        names = [self.fresh(hint) for _ in values]
        self.nodes.append(
            helper.make_node("If", [condition], names, name=names[0], then_branch=graphs[0], else_branch=graphs[1])
        )
        return names
