"""Which layers lose channels together: the dependencies that Torch-Pruning traces, and what it does not know of itself.

Fang et al., "DepGraph: Towards Any Structural Pruning", 2023.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut
from routekit.backbones.pyramid import Column
from routekit.backbones.resize import free_channels
from routekit.backbones.unit import Backbone, seen_input


def traced(view: Backbone) -> tuple[nn.Module, Any]:
    """Give the option-A shortcuts of a network a form that can be pruned, and trace which layers depend on which.

    Args:
        view: The network, which is changed in place.

    Returns:
        The model, and its `DependencyGraph`.
    """
    from torch_pruning import DependencyGraph

    special = _special()
    model = view.model.eval().requires_grad_(requires_grad=True)
    free_channels(model)
    for name, module in list(model.named_modules()):
        if type(module) is OptionAShortcut:
            model.set_submodule(name, SourcedShortcut.of(module))
    with torch.enable_grad(), _closed([module for module in model.modules() if type(module) in special]):
        graph = DependencyGraph().build_dependency(
            model, example_inputs=seen_input(view), customized_pruners=special, verbose=False
        )
    return model, graph


def families(graph: Any, kept: Sequence[nn.Module]) -> Iterator[tuple[Any, int]]:
    """Find the layers that lose channels together.

    Channels that are split, joined or reordered on the way are left out: the network counts on their number.

    Args:
        graph: The `DependencyGraph` of a model.
        kept: The layers that keep all outputs.

    Yields:
        A group of Torch-Pruning, which begins with the layer that makes the channels, and in how many equal parts these
        lie, each of which loses the same ones: those of grouped convolutions and norms.
    """
    for group in graph.get_all_groups(ignored_layers=list(kept), root_module_types=[nn.Conv2d, *_special()]):
        deps = [dep for dep, _ in group]
        if any(each is not None and not _flattens(dep) for dep in deps for each in dep.index_mapping):
            continue
        parts = math.lcm(*(_parts(graph, dep) for dep in deps))
        if graph.get_out_channels(deps[0].target.module) % parts == 0:
            yield group, parts


def _flattens(dep: Any) -> bool:
    """Whether a dependency maps the channels of an image to the inputs of a linear layer."""
    return any(isinstance(each.module, nn.Linear) for each in (dep.source, dep.target))


def _parts(graph: Any, dep: Any) -> int:
    """In how many parts lie the channels that a layer loses by a dependency."""
    layer = dep.target.module
    if isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels:  # depthwise: a group is a channel
        return 1
    pruner = graph.get_pruner_of_module(layer)
    outputs = graph.is_out_channel_pruning_fn(dep.handler)
    return int((pruner.get_out_channel_groups if outputs else pruner.get_in_channel_groups)(layer))


class _Closed(torch.autograd.Function):
    """A layer whose insides are not traced."""

    @staticmethod
    def forward(_: Any, x: Tensor, out: Tensor) -> Tensor:  # noqa: ARG004 - x is what the tracer sees
        return out.clone()


@contextmanager
def _closed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """In this context, some modules hide from autograd what they compute inside."""
    for module in modules:

        def call(x: Tensor, inside: Any = module.forward) -> Any:
            return _Closed.apply(x if x.requires_grad else x.detach().requires_grad_(), inside(x.detach()).detach())

        module.forward = call
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _special() -> dict[type[nn.Module], Any]:
    """How layers lose channels that Torch-Pruning does not know."""
    # Torch-Pruning imports timm, which takes seconds: most commands need neither.
    from timm.layers.eca import CecaModule, EcaModule
    from timm.layers.split_attn import SplitAttn
    from torch_pruning import prune_batchnorm_out_channels, prune_conv_in_channels, prune_conv_out_channels
    from torch_pruning.pruner.function import BasePruningFunc

    class Shortcuts(BasePruningFunc):  # type: ignore[misc]
        """Option-A shortcuts."""

        def prune_out_channels(self, layer: SourcedShortcut, idxs: list[int]) -> SourcedShortcut:
            layer.lose_outputs(idxs)
            return layer

        def prune_in_channels(self, layer: SourcedShortcut, idxs: list[int]) -> SourcedShortcut:
            layer.lose_inputs(idxs)
            return layer

        def get_out_channels(self, layer: SourcedShortcut) -> int:
            return len(layer.source)

        def get_in_channels(self, layer: SourcedShortcut) -> int:
            return layer.channels_in

    class Columns(BasePruningFunc):  # type: ignore[misc]
        """Columns of pyramids: all scales give the same channels, and read the same ones of the column before."""

        def prune_out_channels(self, layer: Column, idxs: list[int]) -> Column:
            for conv in (*layer.same, *layer.finer):
                prune_conv_out_channels(conv, idxs)
            for conv in layer.finer:  # which read the column's own features
                prune_conv_in_channels(conv, idxs)
            for norm in layer.norm:
                prune_batchnorm_out_channels(norm, idxs)
            return layer

        def prune_in_channels(self, layer: Column, idxs: list[int]) -> Column:
            for conv in layer.same:
                prune_conv_in_channels(conv, idxs)
            return layer

        def get_out_channels(self, layer: Column) -> int:
            first: Any = layer.same[0]
            return int(first.out_channels)

        def get_in_channels(self, layer: Column) -> int:
            first: Any = layer.same[0]
            return int(first.in_channels)

    class AnyChannels(BasePruningFunc):  # type: ignore[misc]
        """Efficient channel attention: one filter runs over the channels, however many there are."""

        def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:  # noqa: ARG002 - its signature
            return layer

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: nn.Module) -> None:  # noqa: ARG002 - its signature
            return None

        get_in_channels = get_out_channels

    class Splits(BasePruningFunc):  # type: ignore[misc]
        """Split attention (ResNeSt): of each channel that it gives, it has as many inside as it has splits."""

        def prune_out_channels(self, layer: Any, idxs: list[int]) -> Any:
            width, part = self.get_out_channels(layer), self.get_out_channels(layer) // layer.fc1.groups
            inside, scores = [], []
            for split in range(layer.radix):
                inside += [split * width + each for each in idxs]
                # Scores are ordered by cardinal group first, then by split.
                scores += [(each // part * layer.radix + split) * part + each % part for each in idxs]
            prune_conv_out_channels(layer.conv, inside)
            prune_batchnorm_out_channels(layer.bn0, inside)
            prune_conv_in_channels(layer.fc1, idxs)
            prune_conv_out_channels(layer.fc2, scores)
            return layer

        def prune_in_channels(self, layer: Any, idxs: list[int]) -> Any:
            prune_conv_in_channels(layer.conv, idxs)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.conv.out_channels // layer.radix)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.conv.in_channels)

        def get_out_channel_groups(self, layer: Any) -> int:
            return int(layer.fc1.groups)

        def get_in_channel_groups(self, layer: Any) -> int:
            return int(layer.conv.groups)

    return {
        SourcedShortcut: Shortcuts(),
        Column: Columns(),
        EcaModule: AnyChannels(),
        CecaModule: AnyChannels(),
        SplitAttn: Splits(),
    }
