"""The parameter-free shortcuts of the CIFAR ResNets as convolutions, for runtimes that compute in blocked layouts."""

import torch
from torch import nn

from routekit.backbones.cifar_resnet import BasicBlock, OptionAShortcut, SourcedShortcut
from routekit.network.network import RoutedNetwork


@torch.no_grad()
def convolve_shortcuts(network: RoutedNetwork) -> None:
    """Replace the option-A shortcuts of a network, on the CPU, by convolutions: the same values, bit for bit.

    Runtimes keep a blocked layout through a convolution, but not through slicing and padding channels; the features
    would leave it there, and a whole stage would be computed without its additions fused. It adds 0.2% to the
    multiplications of a ResNet-56, which `CostTable` does not charge.
    """
    for block in network.modules():
        if isinstance(block, BasicBlock) and isinstance(block.shortcut, OptionAShortcut):
            block.shortcut = _convolution(block.shortcut)


def _convolution(shortcut: OptionAShortcut) -> nn.Conv2d:
    source = (shortcut if isinstance(shortcut, SourcedShortcut) else SourcedShortcut.of(shortcut)).source
    conv = nn.Conv2d(shortcut.channels_in, len(source), 1, stride=2, bias=False)
    nn.init.zeros_(conv.weight)
    there = source < shortcut.channels_in
    conv.weight[there.nonzero().squeeze(1), source[there]] = 1
    return conv
