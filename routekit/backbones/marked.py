"""A user's own network, without an adapter: name its shape-preserving blocks, and the rest is found by tracing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module

from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.errors import InputError
from routekit.registry import nearest


class _Chain(nn.Module):
    """Call pieces one after the other."""

    def __init__(self, pieces: Sequence[nn.Module]) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)

    def forward(self, x: Tensor) -> Tensor:
        for piece in self.pieces:
            x = piece(x)
        return x


class _Tracer(fx.Tracer):
    """Traces through everything but the marked blocks."""

    def __init__(self, marked: set[nn.Module]) -> None:
        super().__init__()
        self.marked = marked

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.marked or super().is_leaf_module(m, module_qualified_name)


def mark_units(model: nn.Module, names: Sequence[str], spec: ModelSpec) -> Backbone:
    """View `model` with the blocks at `names` as its skippable units; skipping one leaves the features unchanged.

    The blocks must keep the shape of their input and follow one another in a chain: nothing but a block's output may
    reach what comes after it. What lies between them becomes units that always run. `model` itself stays as it is.
    Raises InputError for a block that is not there, is not in a chain, or changes the shape, and for a network that
    torch.fx cannot trace.
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise InputError(f"{type(model).__name__} has no block {name!r}: {nearest(name, modules)}")
    if not names or len(set(names)) < len(names):
        raise InputError("mark_units needs at least one block, and each of them once")
    marked = {modules[name]: name for name in names}
    was_training = model.training
    model.eval()
    try:
        graph = fx.GraphModule(model, _Tracer(set(marked)).trace(model))
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{type(model).__name__} cannot be traced ({first}): register an adapter instead") from error
    pieces = _split(graph, marked)
    first_unit = next(index for index, (name, _) in enumerate(pieces) if name)
    last_unit = max(index for index, (name, _) in enumerate(pieces) if name)
    units: list[ResidualUnit] = []
    for name, piece in pieces[first_unit : last_unit + 1]:
        units.append(ResidualUnit(name or f"between.{len(units)}", piece, stage=0, skippable=bool(name)))
    view = Backbone(
        model,
        spec,
        stem=_Chain([piece for _, piece in pieces[:first_unit]]).forward,
        units=units,
        head=_Chain([piece for _, piece in pieces[last_unit + 1 :]]).forward,
    )
    _check_shapes(view)
    _number_stages(view)
    model.train(was_training)
    return view


def _split(graph: fx.GraphModule, marked: dict[nn.Module, str]) -> list[tuple[str, nn.Module]]:
    """Cut the traced network at its marked blocks: (name of the block or "", piece), in order."""
    part = 0
    parts: dict[fx.Node, int] = {}
    names: dict[int, str] = {}
    for node in graph.graph.nodes:
        block = graph.get_submodule(node.target) if node.op == "call_module" else None
        if block in marked:
            if marked[block] in names.values():
                raise InputError(f"block {marked[block]!r} is called more than once")
            part += 1
            parts[node], names[part] = part, marked[block]
            part += 1
        else:
            parts[node] = part
    if len(names) < len(marked):
        unused = sorted(set(marked.values()) - set(names.values()))
        raise InputError(f"block {unused[0]!r} is not called by the network's forward")
    outer = split_module(graph, None, lambda node: parts[node])  # type: ignore[arg-type]
    pieces: list[tuple[str, nn.Module]] = []
    previous: Any = None
    for node in outer.graph.nodes:
        if node.op == "call_module":
            number = int(node.target.rpartition("_")[2])
            if previous is not None and node.all_input_nodes != [previous]:
                raise InputError(
                    f"the marked blocks are no chain: {names.get(number, 'what follows them')!r} reads more than the "
                    "output of the piece before it; register an adapter instead"
                )
            # The block itself, not a copy of its call, so that it stays the user's module.
            block = next((module for module, name in marked.items() if name == names.get(number)), None)
            pieces.append((names.get(number, ""), block or outer.get_submodule(node.target)))
        if node.op != "output":
            previous = node
        elif node.all_input_nodes != [previous]:
            raise InputError("the network's output is not that of its last piece: register an adapter instead")
    return pieces


@torch.no_grad()
def _check_shapes(view: Backbone) -> None:
    x = view.stem(torch.zeros(1, *view.spec.input_size))
    for unit in view.units:
        y = unit.run(x)
        if unit.skippable and (not isinstance(y, Tensor) or y.shape != x.shape):
            raise InputError(
                f"block {unit.name!r} changes the shape from {list(x.shape[1:])} to {list(y.shape[1:])}: only blocks "
                "that keep it can be marked; register an adapter for the others"
            )
        x = y


@torch.no_grad()
def _number_stages(view: Backbone) -> None:
    """A stage is a run of units with features of one shape."""
    x, stage, before = view.stem(torch.zeros(1, *view.spec.input_size)), 0, None
    for unit in view.units:
        x = unit.run(x)
        if before is not None and x.shape != before:
            stage += 1
        unit.stage, before = stage, x.shape
