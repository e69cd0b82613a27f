"""Give a network the channels that a saved one has: how a pruned network is built again."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut


def shapes_of(model: nn.Module) -> dict[str, list[int]]:
    """The shapes of a model's tensors, by name: what `resize` needs."""
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def resize(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Change the layers of `model`, in place, to `shapes`; values are yet to be loaded."""
    state = {
        name: torch.zeros(list(shape), dtype=torch.int64 if name.endswith(".source") else torch.float32)
        for name, shape in shapes.items()
    }
    for name, module in list(model.named_modules()):
        weight, source = state.get(f"{name}.weight"), state.get(f"{name}.source")
        if isinstance(module, nn.Conv2d) and weight is not None:
            if module.groups == module.in_channels:  # depthwise: a group is a channel
                module.groups = weight.shape[0]
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
            _reshape(module, name, state)
        elif isinstance(module, nn.BatchNorm2d) and weight is not None:
            module.num_features = len(weight)
            _reshape(module, name, state)
        elif isinstance(module, nn.Linear) and weight is not None:
            module.out_features, module.in_features = weight.shape
            _reshape(module, name, state)
        elif isinstance(module, OptionAShortcut) and source is not None:
            parent, _, own = name.rpartition(".")
            # It reads what its block's first convolution does, though it need not use all of that.
            inputs = state[f"{parent}.conv1.weight"].shape[1]
            setattr(model.get_submodule(parent), own, SourcedShortcut(inputs, source.clone()))


def _reshape(module: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        new = torch.empty_like(state[f"{name}.{own}"])
        setattr(module, own, nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new)
