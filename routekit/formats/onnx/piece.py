"""Parts of a network as ONNX nodes, exported by torch, placed as often as they are needed."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn

from routekit.errors import ExportError, first_line

OPSET = 20


@dataclass(frozen=True)
class Piece:
    """Nodes from one tensor to one tensor, any batch size; names in `tensors` are those of the owner's state dict."""

    nodes: list[NodeProto]
    tensors: list[TensorProto]
    source: str
    target: str

    def place(self, prefix: str, source: str, target: str) -> "Piece":
        """Copy the piece between two named values; all other names get `prefix`."""
        names = {self.source: source, self.target: target, "": ""}
        nodes = []
        for node in self.nodes:
            copied = NodeProto()
            copied.CopyFrom(node)
            copied.name = f"{prefix}/{node.output[0]}"  # runtimes refuse two nodes of one name
            for values in (copied.input, copied.output):
                values[:] = [names.get(name, f"{prefix}/{name}") for name in values]
            nodes.append(copied)
        tensors = []
        for tensor in self.tensors:
            renamed = TensorProto()
            renamed.CopyFrom(tensor)
            renamed.name = f"{prefix}/{tensor.name}"
            tensors.append(renamed)
        return Piece(nodes, tensors, source, target)


class Exporter:
    """Exports calls of modules; blocks that differ in nothing but their weights are exported once."""

    def __init__(self) -> None:
        self.known: dict[Any, Piece | None] = {}

    def export(self, name: str, call: Callable[..., Any], owner: nn.Module, example: Tensor, kind: Any) -> Piece:
        """Export `call`, which uses the parameters of `owner`; calls of one `kind` compute alike.

        Raises ExportError, with `name` in it, if torch cannot export it.
        """
        if kind not in self.known:
            self.known[kind] = self._template(name, call, owner, example)
        template = self.known[kind]
        if template is None:
            return _export(name, call, owner, example)
        return _with_values(template, owner)

    def _template(self, name: str, call: Callable[..., Any], owner: nn.Module, example: Tensor) -> Piece | None:
        """Export with the weights as named tensors; None if some are folded into constants on the way."""
        # Values that no simplification can use up: a bias of zeros would be left out.
        values = {key: tensor.clone() for key, tensor in owner.state_dict().items()}
        generator = torch.Generator().manual_seed(0)
        try:
            for tensor in owner.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            piece = _export(name, call, owner, example)
        finally:
            owner.load_state_dict(values)
        foreign = [t for t in piece.tensors if t.data_type == TensorProto.FLOAT and t.name not in values]
        return None if any(numpy_helper.to_array(tensor).size > 1 for tensor in foreign) else piece


def _with_values(template: Piece, owner: nn.Module) -> Piece:
    state = owner.state_dict()
    tensors = [
        numpy_helper.from_array(state[tensor.name].cpu().numpy(), tensor.name) if tensor.name in state else tensor
        for tensor in template.tensors
    ]
    return Piece(template.nodes, tensors, template.source, template.target)


class _Call(nn.Module):
    """A callable as a module, which is what torch exports."""

    def __init__(self, call: Callable[..., Any], owner: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.owner = owner

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


def _export(name: str, call: Callable[..., Any], owner: nn.Module, example: Tensor) -> Piece:
    piece = _Call(call, owner).eval()
    log = logging.getLogger("torch.onnx")
    level, log.level = log.level, logging.ERROR
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            # A batch of 2: a dimension of 1 would be taken for a constant.
            program = torch.onnx.export(
                piece,
                (example.repeat(2, *[1] * (example.ndim - 1)),),
                input_names=["source"],
                output_names=["target"],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    finally:
        log.level = level
    assert program is not None
    graph = copy.deepcopy(program.model_proto.graph)
    tensors = []
    for tensor in graph.initializer:
        tensor.name = tensor.name.removeprefix("owner.")
        tensors.append(tensor)
    for node in graph.node:
        node.input[:] = [value.removeprefix("owner.") for value in node.input]
    return Piece(list(graph.node), tensors, graph.input[0].name, graph.output[0].name)
