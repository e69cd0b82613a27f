"""Parts of a network as small ONNX graphs, exported by torch, which are placed as often as they are needed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from routekit.errors import ExportError, first_line
from routekit.formats.onnx.quiet import quiet

OPSET = 20
# Of the ONNX file format itself: what runtimes since the end of 2023 read.
IR_VERSION = 9


class _Call(nn.Module):
    """A callable as a module, which is what torch exports; its tensors are those of `owner`."""

    def __init__(self, call: Callable[..., Any], owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner
        self.call = call

    def forward(self, *inputs: Tensor) -> Any:
        return self.call(*inputs)


class Exporter:
    """Exports calls of modules; blocks that differ in nothing but their weights are exported once."""

    def __init__(self) -> None:
        self.known: dict[Any, GraphProto | None] = {}

    def export(self, name: str, call: Callable[..., Any], owner: nn.Module, *examples: Tensor, kind: Any) -> GraphProto:
        """Export a call as a graph with one output.

        Args:
            name: What it is, for the error.
            call: What is exported, for any batch size.
            owner: The module whose parameters it uses.
            examples: Its inputs, of one image.
            kind: Calls of one kind compute alike, if their owners look alike and their inputs have the same shapes.

        Returns:
            The graph, with the owner's values.

        Raises:
            ExportError: torch cannot export it.
        """
        module = _Call(call, owner).eval()
        key = (kind, repr(owner), *(tuple(each.shape) for each in examples))
        if key not in self.known:
            self.known[key] = _template(name, module, examples)
        template, values = self.known[key], module.state_dict()
        if template is None:
            return _export(name, module, examples)
        piece = GraphProto()
        piece.CopyFrom(template)
        for tensor in piece.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].numpy(), tensor.name))
        return piece


def _template(name: str, module: _Call, examples: tuple[Tensor, ...]) -> GraphProto | None:
    """Export with the weights as named tensors; None if some are folded into constants on the way."""
    # Values that no simplification can use up: a bias of zeros would be removed.
    values = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    try:
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        piece = _export(name, module, examples)
        floats = [tensor.flatten() for tensor in module.state_dict().values() if tensor.is_floating_point()]
        drawn = torch.cat([torch.empty(0), *floats])
    finally:
        module.load_state_dict(values)
    foreign = [t for t in piece.initializer if t.data_type == TensorProto.FLOAT and t.name not in values]
    constants = [torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in foreign]
    # A single number may be the module's own constant, or a weight: one of several, as a bias of one junction is.
    folded = any(each.numel() > 1 or bool(torch.isin(each, drawn).any()) for each in constants)
    return None if folded else piece


def _export(name: str, module: _Call, examples: tuple[Tensor, ...]) -> GraphProto:
    try:
        with quiet("torch.onnx"):
            program = torch.onnx.export(
                module,
                # A batch of 2: a dimension of 1 would be taken for a constant.
                tuple(example.repeat(2, *[1] * (example.ndim - 1)) for example in examples),
                dynamic_shapes=((({0: torch.export.Dim.DYNAMIC},) * len(examples)),),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    assert program is not None
    return program.model_proto.graph


def piece_of(nodes: Sequence[NodeProto], tensors: Sequence[TensorProto], source: str, target: str) -> GraphProto:
    """Make a piece of nodes.

    Args:
        nodes: In the order in which they run.
        tensors: The constants that they read.
        source: The name of the value that they read.
        target: The name of the value that they give.

    Returns:
        The graph, with one input and one output.
    """
    read, given = (helper.make_empty_tensor_value_info(name) for name in (source, target))
    return helper.make_graph(nodes, target, [read], [given], tensors)
