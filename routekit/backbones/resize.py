"""Give a network the channels that a saved one has: how a pruned network is built again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """List the shapes of a model's tensors, by name: what `resize` takes."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def free_channels(model: nn.Module) -> None:
    """Let blur pooling, which treats all channels alike, take any number of them. It changes the model in place."""
    for module in model.modules():
        if type(module).__name__ == "BlurPool2d":  # asking for timm's type imports timm
            blur: Any = module
            blur.channels, blur.filt = None, blur.filt[:1]


def resize(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Change the shapes of a model's tensors, in place. Their values are yet to be loaded.

    Args:
        model: The network, with all its channels.
        shapes: The new shape of each tensor, by name.
    """
    free_channels(model)
    for name, module in list(model.named_modules()):
        weight, source = shapes.get(f"{name}.weight"), shapes.get(f"{name}.source")
        if isinstance(module, OptionAShortcut) and source is not None:
            # It reads what its block's first convolution does, though it need not use all of that.
            inputs = shapes[f"{name.rpartition('.')[0]}.conv1.weight"][1]
            model.set_submodule(name, SourcedShortcut(inputs, torch.zeros(list(source), dtype=torch.int64)))
        if weight is None:
            continue
        if isinstance(module, nn.Conv2d):
            if module.groups == module.in_channels > 1:  # depthwise: a group is a channel
                module.groups = weight[0]
            module.out_channels, module.in_channels = weight[0], weight[1] * module.groups
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = weight[0]
        elif isinstance(module, nn.GroupNorm):
            module.num_channels = weight[0]
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight
        for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            new = tensor.new_zeros(list(shapes[f"{name}.{own}"]))
            setattr(module, own, nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new)
