"""Give a network the channels that a saved one has: how a pruned network is built again."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from routekit.backbones.cifar_resnet import OptionAShortcut, SourcedShortcut


def resize(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Change the layers of `model`, in place, to the shapes of the tensors in `state`, which is yet to be loaded."""
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
            # It reads what its block's first convolution does, though it need not use all of that. Of a block that was
            # dropped nothing else is left: what stands for an output without an input is the number of inputs.
            reads = state.get(f"{parent}.conv1.weight")
            inputs = int(source.max()) if reads is None else reads.shape[1]
            setattr(model.get_submodule(parent), own, SourcedShortcut(inputs, source.clone()))


def _reshape(module: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        new = torch.empty_like(state[f"{name}.{own}"])
        setattr(module, own, nn.Parameter(new) if isinstance(tensor, nn.Parameter) else new)
