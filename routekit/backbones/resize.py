"""Give a network the channels that a saved one has: how a pruned network is built again."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """The shapes of a model's tensors, by name: what `resize` needs."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def resize(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Change the layers of `model`, in place, to `shapes`; values are yet to be loaded."""
    for name, module in list(model.named_modules()):
        weight, source = shapes.get(f"{name}.weight"), shapes.get(f"{name}.source")
        if isinstance(module, nn.Conv2d) and weight is not None:
            if module.groups == module.in_channels:  # depthwise: a group is a channel
                module.groups = weight[0]
            module.out_channels, module.in_channels = weight[0], weight[1] * module.groups
            _reshape(module, name, shapes)
        elif isinstance(module, nn.BatchNorm2d) and weight is not None:
            module.num_features = weight[0]
            _reshape(module, name, shapes)
        elif isinstance(module, nn.Linear) and weight is not None:
            module.out_features, module.in_features = weight
            _reshape(module, name, shapes)
        elif isinstance(module, OptionAShortcut) and source is not None:
            parent, _, own = name.rpartition(".")
            # It reads what its block's first convolution does, though it need not use all of that.
            inputs = shapes[f"{parent}.conv1.weight"][1]
            shortcut = SourcedShortcut(inputs, torch.zeros(list(source), dtype=torch.int64))
            setattr(model.get_submodule(parent), own, shortcut)


def _reshape(module: nn.Module, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        new = torch.zeros(list(shapes[f"{name}.{own}"]), dtype=tensor.dtype, device=tensor.device)
        setattr(module, own, nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new)
