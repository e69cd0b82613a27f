"""Narrow blocks: a block with some of its inner channels, whose convolutions are slices of the full block's.

The input and the output of a residual block keep their channels. Between its convolutions it has channels of its own,
and those can be fewer. A narrow block has batch norms of its own, because its features are distributed differently
(Yu et al., "Slimmable Neural Networks", 2019).
"""

import copy
from collections.abc import Iterable
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.errors import InputError


class SharedConv2d(nn.Module):
    """A convolution with some of another's channels, or all of them. It has no weights of its own.

    `source` is not registered: its parameters are learned, moved and saved in its own place. `outputs` and `inputs` [k]
    are the indices of its channels; None for all.
    """

    outputs: Tensor | None
    inputs: Tensor | None

    def __init__(self, source: nn.Conv2d, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
        super().__init__()
        self._source = (source,)
        self.register_buffer("outputs", outputs)
        self.register_buffer("inputs", None if inputs is None else inputs.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, c, H, W] -> [B, k, H', W']."""
        weight, bias = self.slices()
        (source,) = self._source
        return F.conv2d(x, weight, bias, source.stride, source.padding, source.dilation, source.groups)

    def slices(self) -> tuple[Tensor, Tensor | None]:
        """Slice the weight [k, c, h, w] and the bias [k] as they are now."""
        (source,) = self._source
        weight, bias = source.weight, source.bias
        if self.outputs is not None:
            weight = weight.index_select(0, self.outputs)
            bias = None if bias is None else bias.index_select(0, self.outputs)
        return weight if self.inputs is None else weight.index_select(1, self.inputs), bias

    @torch.no_grad()
    def alone(self) -> nn.Conv2d:
        """Make the same convolution with weights of its own."""
        (source,), (weight, bias) = self._source, self.slices()
        conv = copy.deepcopy(source)
        conv.out_channels, conv.in_channels = weight.shape[0], weight.shape[1] * source.groups
        conv.weight = nn.Parameter(weight.detach().clone())
        conv.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        return conv


# Runtimes compute this many channels at once (onnxruntime's NCHWc layout, with AVX-512), and pad others.
LANES = 16
# A convolution that reads a number that is no multiple of this one is computed in a slower layout: a ResNet-56 with a
# quarter of its cost then takes 1.17 ms, and not 0.81.
QUARTER = 4


def channel_step(blocks: Iterable[nn.Module]) -> int:
    """Choose of what the number of inner channels should be a multiple, so that fewer of them take less time.

    It is `LANES` or `QUARTER`, where every layer of a network's `blocks` has four such groups or more to choose from,
    or 1.
    """
    convs = [part for block in blocks for part in block.modules() if isinstance(part, nn.Conv2d)]
    least = min((min(conv.in_channels, conv.out_channels) for conv in convs), default=0)
    return next((step for step in (LANES, QUARTER) if least >= 4 * step), 1)


def stepped(count: float, width: int, step: int) -> int:
    """Round a number of channels to a multiple of `step`.

    Args:
        count: The number that is wanted.
        width: How many channels there are.
        step: Of what the result is a multiple, at least once, unless it is all channels.

    Returns:
        The nearest number, at most `width`.
    """
    return width if count >= width else min(width, max(1, round(count / step)) * step)


def narrow(block: nn.Module, keep: float, step: int = 1) -> nn.Module:
    """Copy a block with fewer channels between its convolutions: those that move its output most.

    All convolutions share the weights of the block. All else is the copy's own.

    Args:
        block: Its inside is a chain of conv1, bn1, conv2 and so on.
        keep: The share of the channels that are kept.
        step: Their number is a multiple of this.

    Returns:
        The narrow block.

    Raises:
        InputError: The block is not like that.
    """
    convs, parts = chain(block), dict[str, Any](block.named_children())
    copied = copy.deepcopy(block)
    for name, module in block.named_modules():
        if type(module) is nn.Conv2d:
            copied.set_submodule(name, SharedConv2d(module))
    kept: Tensor | None = None
    for place, (conv, norm) in enumerate(convs):
        inputs, kept = kept, None
        if norm is not None:
            width, reader = parts[norm].num_features, parts[convs[place + 1][0]]
            kept = _weightiest(parts[norm], reader, stepped(keep * width, width, step))
            copied.set_submodule(norm, _sliced(parts[norm], kept))
        copied.set_submodule(conv, SharedConv2d(parts[conv], kept, inputs))
    return copied


def stand_alone(module: nn.Module) -> None:
    """Give each shared convolution inside a module weights of its own."""
    for name, child in list(module.named_modules()):
        if isinstance(child, SharedConv2d):
            module.set_submodule(name, child.alone())


def chain(block: nn.Module) -> list[tuple[str, str | None]]:
    """List a block's convolutions in order, each with the batch norm that reads it; None with the last one.

    Raises:
        InputError: The inside of the block is no chain of conv1, bn1, conv2 and so on.
    """
    children = dict(block.named_children())
    count = sum(f"conv{number}" in children for number in (1, 2, 3))
    convs: list[tuple[str, str | None]] = [(f"conv{k}", f"bn{k}" if k < count else None) for k in range(1, count + 1)]
    own = {name for pair in convs for name in pair}
    before = takewhile(lambda name: name != f"conv{count}", children)
    plain = count > 1 and all(
        type(children.get(conv)) is nn.Conv2d
        and children[conv].groups == 1
        and (norm is None or isinstance(children.get(norm), nn.BatchNorm2d))
        for conv, norm in convs
    )
    # Between the convolutions, nothing else may depend on the number of channels.
    others = [children[name] for name in before if name not in own]
    if not plain or any([*other.parameters(), *other.buffers()] for other in others):
        name = type(block).__name__
        called = "what lies between marked blocks" if name.startswith("_") else f"a {name}"
        raise InputError(
            f"{called} has no narrow form: known are blocks of conv1, bn1, conv2 and so on, without "
            "groups, and with nothing that has weights between them; junctions=skip and junctions=exit need none"
        )
    return convs


def _weightiest(norm: nn.BatchNorm2d, reader: nn.Conv2d, count: int) -> Tensor:
    """Choose the channels between `norm` and `reader` that move the output most: indices [count], ascending.

    Behind the batch norm, a channel has the standard deviation |gamma|. It moves the output by that times the norm of
    the weights that read it.
    """
    importance = norm.weight.detach().abs() * torch.linalg.vector_norm(reader.weight.detach(), dim=(0, 2, 3))
    kept: Tensor = importance.topk(count).indices.sort().values
    return kept


def _sliced(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """Copy the channels `kept` [k] of a batch norm."""
    sliced = copy.deepcopy(norm)
    sliced.num_features = len(kept)
    for name in ("weight", "bias"):
        setattr(sliced, name, nn.Parameter(getattr(norm, name).detach()[kept]))
    for name in ("running_mean", "running_var"):
        setattr(sliced, name, getattr(norm, name)[kept].clone())
    return sliced
