"""Rows of a batch: gather those that take a sink, compute, put back."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from routekit.backbones.unit import ResidualUnit


def execute(unit: ResidualUnit, x: Tensor, sinks: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Take some images of a batch by sinks of a unit, and the others by its default.

    Args:
        unit: The unit.
        x: Features `[B, C, H, W]`. They are changed in place where the default keeps them as they are.
        sinks: For each sink, the rows of the images that take it; at least one row in all.

    Returns:
        The features of all images, and those of the images in `sinks`, in that order.
    """
    for sink, rows in enumerate(sinks):
        if len(rows) == len(x):
            x = unit.take(x, sink)
            return x, x
    made = [(rows, unit.take(take(x, rows), sink)) for sink, rows in enumerate(sinks) if len(rows)]
    ran = made[0][1] if len(made) == 1 else torch.cat([features for _, features in made])
    if not unit.keeps:
        others = np.delete(np.arange(len(x)), np.concatenate([rows for rows, _ in made]))
        if len(others):
            made.append((others, unit.take(take(x, others), -1).to(ran.dtype)))
        x = torch.empty_like(ran[:1].expand(len(x), -1, -1, -1))
    for rows, features in made:
        put(x, rows, features)
    return x, ran


def take(x: Tensor, rows: np.ndarray) -> Tensor:
    """Gather samples.

    Args:
        x: `[B, C, H, W]`.
        rows: `[b]`, the samples.

    Returns:
        `[b, C, H, W]`, in the memory format of `x`.
    """
    chosen = torch.from_numpy(rows).to(x.device)
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, chosen).permute(0, 3, 1, 2)
    return x.index_select(0, chosen)


def put(x: Tensor, rows: np.ndarray, values: Tensor) -> None:
    """Put samples back, in place.

    Args:
        x: `[B, C, H, W]`.
        rows: `[b]`, the samples.
        values: `[b, C, H, W]`.
    """
    x, values = x.permute(0, 2, 3, 1), values.permute(0, 2, 3, 1)
    if x.device.type == "cpu" and x.dtype != torch.bfloat16:
        x.numpy()[rows] = values.numpy()  # torch's index_copy_ takes five times as long
    else:
        x.index_copy_(0, torch.from_numpy(rows).to(x.device), values)
