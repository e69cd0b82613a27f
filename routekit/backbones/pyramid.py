"""The multiscale networks of McGill and Perona, "Deciding How to Decide" (2017), Fig. 3: columns over a pyramid.

`pyramid8` has eight columns. The first ones compute features at four scales (32, 16, 8 and 4 pixels), later ones
without the finest scales. A column goes from its finest scale to its coarsest one. Each scale is computed from the same
scale of the column before, and from the finer scale of its own column, before that is normalised; each has weights and
a batch norm of its own. It is so in the authors' code (multipath-nn, `layer_types.py`: MultiscaleConvMax), and so are
its multiply-adds: 20.53M in all columns, 25.7% of it in the first two. Behind each column, the coarsest scale can be
classified. `pyramid3`, the first three columns, is a statically routed baseline. `pyramid8x2` has twice the channels.

The branching networks of section 5.4 are trees of its columns: `junctions/tree.py`. With copies of columns beside them
(`junctions.branch.candidates`), every image chooses among the copies of each column anew, and paths may cross.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.backbones.adapters import register_adapter
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.errors import InputError

# Of each column: its channels, and how many scales it computes.
COLUMNS = ((16, 4), (16, 4), (32, 3), (32, 3), (64, 2), (64, 2), (128, 1), (128, 1))
SCALES = 4
WIDTHS = (1, 2, 3)


def pyramid_names() -> tuple[str, ...]:
    """Names of the networks: the first n columns, at each width."""
    return tuple(
        f"pyramid{count}" + (f"x{width}" if width > 1 else "")
        for count in range(len(COLUMNS), 0, -1)
        for width in WIDTHS
    )


def pack(scales: list[Tensor]) -> Tensor:
    """Features at scales [B, C, H, W], [B, C, H/2, W/2], ... -> one tensor [B, C, H, 3W/2], as mipmaps are kept.

    The finest is on the left, the others are on top of each other to its right; a single scale stays as it is.
    """
    finest, *rest = scales
    if not rest:
        return finest
    width = rest[0].shape[3]
    column = torch.cat([F.pad(each, (0, width - each.shape[3])) for each in rest], dim=2)
    column = F.pad(column, (0, 0, 0, finest.shape[2] - column.shape[2]))
    return torch.cat([finest, column], dim=3)


def unpack(x: Tensor, count: int) -> list[Tensor]:
    """Undo `pack`.

    Args:
        x: Packed features.
        count: How many scales they have.

    Returns:
        The features at each scale, the finest first.
    """
    if count == 1:
        return [x]
    size, top = x.shape[2], 0
    scales = [x[..., :size]]
    for index in range(1, count):
        small = size >> index
        scales.append(x[..., top : top + small, size : size + small])
        top += small
    return scales


class Column(nn.Module):
    """3x3 convolutions from the same scale and, behind a 2x2 max pooling, from the finer one; batch norms, ReLU.

    Attributes:
        same: Of each scale, the finest first: from the same scale of the column before.
        finer: Of each scale but the finest: from the finer scale of this column, before its batch norm.
        norm: Of each scale that is given: the coarsest ones.
    """

    def __init__(self, channels_in: int, channels_out: int, scales: int, given: int) -> None:
        super().__init__()
        self.same = _convolutions(channels_in, channels_out, scales)
        self.finer = _convolutions(channels_out, channels_out, scales - 1)
        self.norm = nn.ModuleList(nn.BatchNorm2d(channels_out, eps=1e-6) for _ in range(given))
        self.register_load_state_dict_pre_hook(_refuse_former)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Packed features of as many scales as it computes -> of those that it gives."""
        finest, *coarser = unpack(x, len(self.same))
        first, *rest = self.same
        made = [first(finest)]
        for same, finer, scale in zip(rest, self.finer, coarser, strict=True):
            made.append(same(scale) + finer(F.max_pool2d(made[-1], 2)))
        given = made[-len(self.norm) :]
        return pack([F.relu(norm(each)) for norm, each in zip(self.norm, given, strict=True)])


def _convolutions(channels_in: int, channels_out: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False) for _ in range(count))


def _refuse_former(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Raise InputError for the weights of a column as it was once, with one convolution for all scales."""
    del module
    if f"{prefix}same.weight" in state:
        raise InputError(
            "these are the weights of a former pyramid, whose columns were not those of the paper: "
            "train it again, or use it with the version of routekit that made it"
        )


class Coarsest:
    """Packed features -> those of the coarsest scale [B, C * size * size], which classifiers and routers read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        """Flatten the last scale, of `size` pixels."""
        return unpack(x, (int(x.shape[2]) // self.size).bit_length())[-1].flatten(1)


class PyramidNet(nn.Module):
    """The first `columns` columns, `width` times as wide, for images [B, 3, size, size]; a linear layer classifies."""

    def __init__(self, columns: int, width: int, num_classes: int, size: int = 32) -> None:
        super().__init__()
        self.coarsest = Coarsest(size >> (SCALES - 1))
        channels = [3, *(width * own for own, _ in COLUMNS[:columns])]
        # A column gives what the next one reads; classifiers and routers read the coarsest scale.
        scales = [*(own for _, own in COLUMNS[:columns]), 1]
        self.columns = nn.ModuleList(
            Column(*shape) for shape in zip(channels, channels[1:], scales, scales[1:], strict=False)
        )
        self.linear = nn.Linear(channels[-1] * self.coarsest.size**2, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(self.linear.bias)

    def stem(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> themselves at every scale, each the average of 2x2 pixels of the finer one, packed."""
        return pack([x] + [F.avg_pool2d(x, 2**scale) for scale in range(1, SCALES)])

    def head(self, x: Tensor) -> Tensor:
        """Packed features -> logits [B, classes]."""
        logits: Tensor = self.linear(self.coarsest(x))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> logits [B, classes]."""
        x = self.stem(x)
        for column in self.columns:
            x = column(x)
        return self.head(x)


def pyramid(spec: ModelSpec) -> PyramidNet:
    """Build the network of a specification. Raises InputError for images that cannot be halved three times."""
    columns, width = re.fullmatch(r"pyramid(\d)(?:x(\d))?", spec.name).groups()  # type: ignore[union-attr]
    size = spec.input_size[1]
    if size != spec.input_size[2] or size % 2 ** (SCALES - 1):
        raise InputError(f"{spec.name} takes square images whose size is a multiple of 8, not {spec.input_size}")
    return PyramidNet(int(columns), int(width or 1), spec.num_classes, size)


@register_adapter(PyramidNet)
def adapt_pyramid(model: PyramidNet, spec: ModelSpec) -> Backbone:
    """See a pyramid network as stem, columns and head. No column can be skipped, but each can have copies."""
    units = [
        ResidualUnit(f"columns.{index}", column, stage=SCALES - COLUMNS[index][1], skippable=False, branchable=True)
        for index, column in enumerate(model.columns)
    ]
    return Backbone(model, spec, model.stem, units, model.head, classifier="linear", summary=model.coarsest)
