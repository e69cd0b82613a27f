"""Fuse what follows a convolution into it: one call of oneDNN for convolution, addition and ReLU, on CPUs.

Eager torch writes a convolution's output, then reads and writes it again for the addition and for the activation, and
brings the weights into oneDNN's layout in each call. These are the calls that torch's compiler makes in their place;
made here, they serve batches of any size without being compiled anew.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from routekit.backbones.unit import Backbone, ResidualUnit
from routekit.backbones.walk import walk
from routekit.execution.features import features_at
from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, arrive
from routekit.network.program import Classify, Head, Interpreter, Stem, Step, Stop, Units, View

onednn = torch.ops.mkldnn
# For how many images the weights are laid out that serve any number but one.
SEVERAL = 8
ADDITIONS = (operator.add, torch.add)
ACTIVATIONS = (F.relu, torch.relu, torch.relu_)


class FusedConv(nn.Module):
    """relu(conv(x) + other), where the addition and the activation are optional.

    oneDNN wants one layout of the weights for one image and another for several; each is made when it is first needed.

    Args:
        conv: The convolution.
        size: `[C, H, W]` of the features that it reads.
        activated: Whether a ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, size: torch.Size, *, activated: bool) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.shape = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.activation = "relu" if activated else None
        self.size = list(size)
        self.weight = conv.weight
        self.bias = conv.bias
        self.packed: dict[int, Tensor] = {}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Compute.

        Args:
            x: Features `[B, C, H, W]`.
            other: What is added, of the output's size; None for nothing.

        Returns:
            Features.
        """
        batch = 1 if len(x) == 1 else SEVERAL
        if batch not in self.packed:
            self.packed[batch] = onednn._reorder_convolution_weight(self.weight, *self.shape, [batch, *self.size])
        operands = (self.packed[batch], self.bias, *self.shape)
        if other is None:
            out: Tensor = onednn._convolution_pointwise(x, *operands, self.activation or "none", [], "")
        else:
            out = onednn._convolution_pointwise.binary(x, other, *operands, "add", 1.0, self.activation, [], "")
        return out


def can_fuse(network: RoutedNetwork) -> bool:
    """Whether oneDNN computes here: float32 on a CPU for which torch was built with it."""
    parameter = next(network.parameters())
    here = parameter.device.type == "cpu" and parameter.dtype == torch.float32
    return here and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@torch.no_grad()
def fuse(network: RoutedNetwork) -> RoutedNetwork:
    """Return `network`, as `prepare` gives it, with fused convolutions: for inference, same logits up to rounding.

    Its forms hold the fused parts alone. What cannot be traced stays as it is; where oneDNN does not compute, all does.
    """
    if not can_fuse(network):
        return network
    images = torch.randn(2, *network.spec.input_size, generator=torch.Generator().manual_seed(0))
    x = images.contiguous(memory_format=torch.channels_last)
    forms: dict[int, Backbone] = {}
    for form in network.forms:
        begins = any(isinstance(step, Stem) and step.form is form and not step.shared for step in network.steps)
        stem = _fused(form.stem, form.model, x) if begins else form.stem
        walked = list(walk(form.units, form.stem(x)))
        fused = [_fused_unit(unit, form.model, features) for unit, features, _ in walked]
        head = _fused(form.head, form.model, walked[-1][2])
        shortcuts = [unit.shortcut for unit in fused if isinstance(unit.shortcut, nn.Module)]
        own = [stem] if isinstance(stem, nn.Module) else []
        parts = nn.ModuleList([*own, *(unit.block for unit in fused), *shortcuts, head])
        forms[id(form)] = replace(form, model=parts, stem=stem, units=fused, head=head)
    state = _Fusing(forms)
    for step, state.reads in features_at(network, x):
        fused_steps([step], state)
    return RoutedNetwork(state.steps, blueprint=network.blueprint, pricing=network.pricing).eval()


@dataclass
class _Fusing:
    """The fused forms, by identity of the form, the features that the present step reads, and the program so far."""

    forms: dict[int, Backbone]
    reads: Tensor = field(init=False)
    steps: list[Step] = field(default_factory=list)


fused_steps: Interpreter[_Fusing] = Interpreter("fusing")


@fused_steps.on(View, Stop)
def _as_it_is(step: Step, state: _Fusing) -> None:
    state.steps.append(step)


@fused_steps.on(Stem, Head)
def _of_form(step: Stem | Head, state: _Fusing) -> None:
    state.steps.append(replace(step, form=state.forms[id(step.form)]))


@fused_steps.on(Units)
def _units(step: Units, state: _Fusing) -> None:
    form = state.forms[id(step.form)]
    whole = {unit.name: unit for unit in form.units}
    state.steps.append(replace(step, form=form, units=[_like(unit, whole[unit.name]) for unit in step.units]))


@fused_steps.on(Classify)
def _classify(step: Classify, state: _Fusing) -> None:
    state.steps.append(replace(step, head=_fused(step.head, step.head, state.reads)))


def _fused_unit(unit: ResidualUnit, model: nn.Module, x: Tensor) -> ResidualUnit:
    """Fuse all that a unit can compute, given features like `x`."""
    shortcut = None if unit.shortcut is None else _fused(unit.shortcut, model, x)
    sinks = tuple(_fused(sink, sink, x) if isinstance(sink, nn.Module) else sink for sink in unit.sinks)
    run = unit.block if isinstance(unit.block, Paths) else unit.run
    return replace(unit, block=_fused(run, model, x), shortcut=shortcut, sinks=sinks)


def _like(unit: ResidualUnit, fused: ResidualUnit) -> ResidualUnit:
    """The fused form of a unit, with the sinks that the unit has in its step: all of them, or the block alone."""
    return fused if unit.decides == fused.decides else replace(fused, sinks=unit.sinks)


class _Call(nn.Module):
    """A callable as a module, which is what is traced; `model` owns the modules that it uses."""

    def __init__(self, call: Callable[[Tensor], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class _Tracer(fx.Tracer):
    """Looks into a module only where there is a convolution in it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return isinstance(m, nn.Conv2d) or not any(isinstance(part, nn.Conv2d) for part in m.modules())


def _fused(call: Callable[[Tensor], Tensor], model: nn.Module, example: Tensor) -> nn.Module:
    """Trace a call on features like `example`, and fuse what can be; of one module for each path, in each."""
    if isinstance(call, Paths):
        seen = arrive(example, len(call.each))[0]
        return Paths([_fused(each, each, seen) for each in call.each], turn=call.turn, marks=call.marks)
    root = _Call(call, model).eval()
    try:
        graph = _Tracer().trace(root)
    except Exception:  # a forward that depends on values: torch.fx raises whatever the forward meets
        return root
    traced = fx.GraphModule(root, graph)
    ShapeProp(traced).propagate(example)
    for node in list(graph.nodes):
        if isinstance(_module(traced, node), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        module = _module(traced, node)
        # Exact types: a weight-standardised convolution is not its weight.
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            _fuse(traced, node, module)
    traced.delete_all_unused_submodules()
    traced.recompile()
    # A trace does not see what a forward does in place to a tensor that goes by two names.
    same = torch.allclose(traced(example), root(example), rtol=1e-4, atol=1e-4)
    for module in traced.modules():
        if isinstance(module, FusedConv):
            module.packed.clear()
    return traced if same else root


def _fuse(traced: fx.GraphModule, node: fx.Node, conv: nn.Conv2d) -> None:
    """Put one module in the place of a convolution and of the addition and activation that alone read its output."""
    chain, operands, activated = [node], [node.args[0]], False
    following = _reader(node)
    if following is not None and _adds(following):
        chain.append(following)
        operands.append(next(arg for arg in following.args if arg is not node))
        following = _reader(following)
    if following is not None and _activates(traced, following):
        chain.append(following)
        activated = True
    name = str(node.target).replace(".", "_")
    source = node.all_input_nodes[0]
    traced.add_submodule(name, FusedConv(conv, source.meta["tensor_meta"].shape[1:], activated=activated))
    with traced.graph.inserting_before(chain[-1]):
        fused = traced.graph.call_module(name, tuple(operands))
    fused.meta = chain[-1].meta
    chain[-1].replace_all_uses_with(fused)
    for replaced in reversed(chain):
        traced.graph.erase_node(replaced)


def _module(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _reader(node: fx.Node) -> fx.Node | None:
    """The only node that reads this one's output."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def _adds(node: fx.Node) -> bool:
    """Whether a node adds two tensors of one size."""
    if node.op != "call_function" or node.target not in ADDITIONS or node.kwargs or len(node.all_input_nodes) != 2:
        return False
    return len({operand.meta["tensor_meta"].shape for operand in node.all_input_nodes}) == 1


def _activates(traced: fx.GraphModule, node: fx.Node) -> bool:
    return type(_module(traced, node)) is nn.ReLU or (node.op == "call_function" and node.target in ACTIVATIONS)
