"""Splits that keep the share of every class."""

import torch
from torch import Generator, Tensor


def take_per_class(labels: Tensor, counts: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Choose samples of each class at random.

    Args:
        labels: Int64 [N], below K.
        counts: How many samples of each class, int64 [K].
        generator: Draws them.

    Returns:
        The indices of the rest and of those chosen, each ascending.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount(minlength=len(counts))
    first = sizes.cumsum(0) - sizes
    place = torch.arange(len(labels)) - first.repeat_interleave(sizes)
    taken = place < counts.repeat_interleave(sizes)
    return grouped[~taken].sort().values, grouped[taken].sort().values


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Choose a share of each class: at least one sample, but never all of them.

    Args:
        labels: Int64 [N].
        fraction: The share, in (0, 1).
        seed: Draws the samples.

    Returns:
        The indices of the rest and of those chosen, each ascending. A class of one sample stays whole.
    """
    sizes = labels.bincount()
    counts = (sizes * fraction).round().long().clamp(min=1).minimum(sizes - 1)
    return take_per_class(labels, counts, torch.Generator().manual_seed(seed))
