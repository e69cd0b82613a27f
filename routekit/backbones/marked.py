"""A user's own network, without an adapter: name its shape-preserving blocks, and the rest is found by tracing."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module

from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit, evaluating
from routekit.backbones.walk import walk
from routekit.errors import InputError, first_line
from routekit.registry import nearest

_WAY_OUT = "register an adapter instead"


class _Root(nn.Module):
    """Calls the model with one batch, so that optional arguments of its forward take their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class _Call(nn.Module):
    """Calls the module that is now at `path` of `root`: a batch norm may have been folded."""

    def __init__(self, root: nn.Module, path: str) -> None:
        super().__init__()
        self.root = (root,)  # in a tuple: the whole model is no submodule of this one
        self.path = path

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.root[0].get_submodule(self.path)(*inputs, **options)


class _Piece(nn.Module):
    """A part of the traced network between marked blocks; `code` is its GraphModule.

    `attributes` are the paths of the parameters and buffers that it reads directly. They are looked up in `root` at
    each call, as are the modules that it calls. So what replaces them in the model replaces them here: moving a network
    to another device or dtype replaces its buffers, for example.
    """

    def __init__(self, code: Any, root: nn.Module, attributes: Sequence[str]) -> None:
        super().__init__()
        self.attributes = tuple(attributes)
        self.root = (root,)
        paths = {module: path for path, module in root.named_modules()}
        called = {node.target: code.get_submodule(node.target) for node in code.graph.nodes if node.op == "call_module"}
        for name, module in called.items():
            code.set_submodule(name, _Call(root, paths[module]))
        self.code = code
        # Registered, so that `parameters()` of this piece are complete.
        self.called = nn.ModuleList(called.values())
        for path in attributes:
            value = attrgetter(path)(root)
            if isinstance(value, nn.Parameter):
                self.register_parameter(path.replace(".", "_"), value)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.code(x, *(attrgetter(path)(self.root[0]) for path in self.attributes))
        return out

    def extra_repr(self) -> str:
        # Pieces with the same modules may still compute different things.
        return str(self.code.code).strip()


class _Tracer(fx.Tracer):
    """Traces through everything but the marked blocks."""

    def __init__(self, marked: set[nn.Module]) -> None:
        super().__init__()
        self.marked = marked

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.marked or super().is_leaf_module(m, module_qualified_name)


def mark_units(model: nn.Module, names: Sequence[str], spec: ModelSpec) -> Backbone:
    """View a network with some of its blocks as skippable units. Skipping one does not change the features.

    The blocks must keep the shape of their input, and form a chain: only the output of a block may reach what comes
    after it. What lies between them becomes units that always run, in the form it has in eval mode (a functional
    dropout there stays off).

    Args:
        model: The network. It and its mode stay as they are.
        names: The paths of the blocks in it.
        spec: Its specification.

    Returns:
        The view.

    Raises:
        InputError: A block does not exist, is not in a chain, or changes the shape. Or torch.fx cannot trace the
            network.
    """
    modules = dict(model.named_modules())
    del modules[""]
    for name in names:
        if name not in modules:
            raise InputError(f"{type(model).__name__} has no block {name!r}: {nearest(name, modules)}")
    if not names or len(set(names)) < len(names):
        raise InputError("mark_units needs at least one block, and each of them once")
    with evaluating(model):
        pieces = _split(_Root(model), {modules[name]: name for name in names})
        marked = [place for place, (name, _) in enumerate(pieces) if name]
        first, after = marked[0], marked[-1] + 1
        view = Backbone(
            model,
            spec,
            stem=nn.Sequential(*(piece for _, piece in pieces[:first])).forward,
            units=[
                ResidualUnit(name or f"between.{place}", piece, stage=0, skippable=bool(name))
                for place, (name, piece) in enumerate(pieces[first:after])
            ],
            head=nn.Sequential(*(piece for _, piece in pieces[after:])).forward,
            classifier=next((name for name in reversed(modules) if isinstance(modules[name], nn.Linear)), ""),
        )
        _check(view)
    return view


def _split(root: _Root, marked: dict[nn.Module, str]) -> list[tuple[str, nn.Module]]:
    """Cut the network of `root` at its marked blocks: (name of the block or "", piece), in order."""
    try:
        graph = fx.GraphModule(root, _Tracer(set(marked)).trace(root))
    except Exception as error:  # whatever the user's forward raises on a proxy
        raise InputError(f"{type(root.model).__name__} cannot be traced ({first_line(error)}): {_WAY_OUT}") from error
    parts: dict[fx.Node, int] = {}
    names: dict[int, str] = {}
    part = 0
    for node in graph.graph.nodes:
        name = marked.get(graph.get_submodule(node.target)) if node.op == "call_module" else None
        if name in names.values():
            raise InputError(f"block {name!r} is called more than once")
        if name and len(node.args) + len(node.kwargs) != 1:
            raise InputError(f"block {name!r} is called with more than the features: {_WAY_OUT}")
        part += bool(name)
        parts[node] = part
        if name:
            names[part] = name
            part += 1
    unused = sorted({*marked.values()} - {*names.values()})
    if unused:
        raise InputError(f"block {unused[0]!r} is not called by the network's forward")
    outer = split_module(graph, None, lambda node: parts[node])  # type: ignore[arg-type]
    pieces: list[tuple[str, nn.Module]] = []
    previous: Any = next(node for node in outer.graph.nodes if node.op == "placeholder")
    for node in outer.graph.nodes:
        if node.op == "call_module":
            name = names.get(int(node.target.rpartition("_")[2]), "")
            attributes = [str(given.target) for given in node.args if given.op == "get_attr"]
            if [given for given in node.args if given.op != "get_attr"] != [previous]:
                raise InputError(
                    f"the marked blocks are no chain: {name or 'what follows them'!r} reads more than the output of "
                    f"the piece before it; {_WAY_OUT}"
                )
            # The block itself, not a copy of its call, so that it stays the user's module.
            block = root.model.get_submodule(name)
            pieces.append((name, block if name else _Piece(outer.get_submodule(node.target), root, attributes)))
            previous = node
        elif node.op == "output" and node.args[0] is not previous:
            raise InputError(f"the network's output is not that of its last piece: {_WAY_OUT}")
    return pieces


@torch.no_grad()
def _check(view: Backbone) -> None:
    """Check on two images that every unit keeps the shape, and that the view computes what the model does.

    Units get their stages, too: a stage is a run of units with outputs of one shape.
    """
    x = torch.randn(2, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    x = x.to(next(view.model.parameters(), x))
    try:
        want = view.model(x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{type(view.model).__name__} takes no images of {list(view.spec.input_size)}: {first_line(error)}"
        ) from error
    stage, before, last = 0, None, x
    for unit, read, y in walk(view.units, view.stem(x)):
        if unit.skippable and (not isinstance(y, Tensor) or y.shape != read.shape):
            what = f"{list(read.shape[1:])} to {list(y.shape[1:])}" if isinstance(y, Tensor) else "that of a tensor"
            raise InputError(
                f"block {unit.name!r} changes the shape from {what}: only blocks that keep it can be marked; "
                "register an adapter for the others"
            )
        stage += before is not None and y.shape != before
        unit.stage, before, last = stage, y.shape, y
    if not torch.equal(view.head(last), want):
        raise InputError(f"the traced {type(view.model).__name__} computes something else than itself: {_WAY_OUT}")
