"""Narrow blocks: a block with some of its inner channels, whose convolutions are slices of the full block's.

What enters a residual block and what leaves it keep their channels; between its convolutions it has channels of its
own, and those can be fewer. A narrow block has batch norms of its own, because what it computes is distributed
differently (Yu et al., "Slimmable Neural Networks", 2019).
"""

import copy
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.errors import InputError


class SharedConv2d(nn.Module):
    """A convolution with some of another's channels, or all of them: it has no weights of its own.

    `source` is not registered: its parameters are learned, moved and saved where it is at home. `outputs` and `inputs`
    [k] say which of its channels these are; None for all.
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
        """Weight [k, c, h, w] and bias [k] as they are now."""
        (source,) = self._source
        weight, bias = source.weight, source.bias
        if self.outputs is not None:
            weight = weight.index_select(0, self.outputs)
            bias = None if bias is None else bias.index_select(0, self.outputs)
        return weight if self.inputs is None else weight.index_select(1, self.inputs), bias

    @torch.no_grad()
    def alone(self) -> nn.Conv2d:
        """The same convolution with weights of its own."""
        (source,), (weight, bias) = self._source, self.slices()
        conv = copy.deepcopy(source)
        conv.out_channels, conv.in_channels = weight.shape[0], weight.shape[1] * source.groups
        conv.weight = nn.Parameter(weight.detach().clone())
        conv.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        return conv


# Runtimes compute this many channels at once (onnxruntime's NCHWc layout, with AVX-512): others are padded, or, where a
# convolution reads a number that is no multiple of four, computed in a slower layout.
LANES = 16
# Layers with fewer channels than this have too few of such groups to choose from.
WIDE = 64


def channel_step(blocks: Iterable[nn.Module]) -> int:
    """In which steps channels inside of a network's `blocks` are best kept, so that fewer of them take less time.

    `LANES`, or 1 if some layer has few channels.
    """
    convs = [part for block in blocks for part in block.modules() if isinstance(part, nn.Conv2d)]
    return LANES if min((min(conv.in_channels, conv.out_channels) for conv in convs), default=0) >= WIDE else 1


def stepped(count: float, width: int, step: int) -> int:
    """The number of channels nearest to `count`, of `width`: all of them, or a multiple of `step`, at least one."""
    return width if count >= width else min(width, max(1, round(count / step)) * step)


def narrow(block: nn.Module, keep: float, step: int = 1) -> nn.Module:
    """A copy of `block` with the share `keep` of the channels between its convolutions, and the block's own weights.

    Those are kept that move the block's output most, in multiples of `step`. All convolutions are shared, all else is
    the copy's own.
    Raises InputError for a block whose inside is not a chain of conv1, bn1, conv2, ...
    """
    convs = chain(block)
    copied = copy.deepcopy(block)
    for name, module in block.named_modules():
        if type(module) is nn.Conv2d:
            _set(copied, name, SharedConv2d(module))
    kept: Tensor | None = None
    for place, (conv, norm) in enumerate(convs):
        source = block.get_submodule(conv)
        assert isinstance(source, nn.Conv2d)
        inputs, kept = kept, None
        if norm is not None:
            own, reader = block.get_submodule(norm), block.get_submodule(convs[place + 1][0])
            assert isinstance(own, nn.BatchNorm2d)
            assert isinstance(reader, nn.Conv2d)
            kept = _weightiest(own, reader, stepped(keep * own.num_features, own.num_features, step))
            _set(copied, norm, _sliced(own, kept))
        _set(copied, conv, SharedConv2d(source, kept, inputs))
    return copied


def stand_alone(module: nn.Module) -> None:
    """Give every shared convolution inside `module` weights of its own: nothing learned elsewhere changes it then."""
    for name, child in list(module.named_modules()):
        if isinstance(child, SharedConv2d):
            _set(module, name, child.alone())


def chain(block: nn.Module) -> list[tuple[str, str | None]]:
    """The block's convolutions in order, each with the batch norm that reads it; None with the last one.

    Raises InputError for a block whose inside is no such chain.
    """
    children = dict(block.named_children())
    count = sum(f"conv{number}" in children for number in (1, 2, 3))
    convs: list[tuple[str, str | None]] = [(f"conv{k}", f"bn{k}" if k < count else None) for k in range(1, count + 1)]
    plain = count > 1 and all(
        type(children.get(conv)) is nn.Conv2d
        and children[conv].groups == 1
        and (norm is None or isinstance(children.get(norm), nn.BatchNorm2d))
        for conv, norm in convs
    )
    # Between the convolutions, nothing else may know how many channels there are.
    order = list(children)
    inside = order[: order.index(f"conv{count}")] if plain else []
    own = {name for pair in convs for name in pair}
    if not plain or any(name not in own and _has_tensors(children[name]) for name in inside):
        raise InputError(
            f"a {type(block).__name__} has no narrow form: known are blocks of conv1, bn1, conv2 and so on, without "
            "groups, and with nothing that has weights between them; other --junctions need none: skip, exit"
        )
    return convs


def _has_tensors(module: nn.Module) -> bool:
    return bool([*module.parameters(), *module.buffers()])


def _weightiest(norm: nn.BatchNorm2d, reader: nn.Conv2d, count: int) -> Tensor:
    """Indices [count], ascending, of the channels that `norm` gives and `reader` reads, that move its output most.

    A channel leaves the batch norm with the standard deviation |gamma|, and moves the output by that times the norm of
    the weights that read it.
    """
    importance = norm.weight.detach().abs() * torch.linalg.vector_norm(reader.weight.detach(), dim=(0, 2, 3))
    kept: Tensor = importance.topk(count).indices.sort().values
    return kept


def _sliced(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    """A batch norm of the channels `kept` [k]."""
    sliced = copy.deepcopy(norm)
    sliced.num_features = len(kept)
    for name in ("weight", "bias"):
        setattr(sliced, name, nn.Parameter(getattr(norm, name).detach()[kept]))
    for name in ("running_mean", "running_var"):
        setattr(sliced, name, getattr(norm, name)[kept].clone())
    return sliced


def _set(module: nn.Module, path: str, child: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, child)
