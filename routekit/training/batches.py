"""The images of each step: they depend on seed, step and process alone, so a resumed run sees the same."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from routekit.data.image_set import Images
from routekit.errors import InputError


def step_seed(seed: int, *place: int) -> int:
    """Return a seed for one place in a run, so that resuming there needs no stored generator.

    Args:
        seed: Of the run.
        *place: Numbers, such as epoch, step and process.

    Returns:
        The seed.
    """
    value = seed
    for number in place:
        value = (value * 1_000_003 + number + 1) % (2**63 - 1)
    return value


class Batches:
    """The batches of one process: uint8 images `[b, 3, H, W]` and labels `[b]`. Each epoch has another order.

    The samples of a step, `batch_size` of them, are split over `world` processes. This is number `rank`. They are fewer
    where there are not so many samples, or where they cannot be split evenly.

    Raises:
        InputError: There are more processes than samples.
    """

    def __init__(self, images: Images, batch_size: int, *, seed: int, rank: int, world: int) -> None:
        self.batch_size = min(batch_size, len(images)) // world * world
        if self.batch_size == 0:
            raise InputError(f"a batch of {batch_size} cannot be split over {world} processes")
        self.images, self.seed, self.rank, self.world = images, seed, rank, world
        self.steps_per_epoch = max(1, len(images) // self.batch_size)

    def since(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from a step on, without end. The images are read ahead."""
        first, place = divmod(step, self.steps_per_epoch)
        for epoch in itertools.count(first):
            shuffle = torch.Generator().manual_seed(step_seed(self.seed, epoch))
            order = torch.randperm(len(self.images), generator=shuffle)
            steps = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)
            mine = steps[place if epoch == first else 0 :, self.rank :: self.world]
            yield from self.images.batches(mine.flatten(), mine.shape[1])


def rotating(total: int, count: int, turn: int, seed: int) -> Tensor:
    """Return a few indices, which rotate through all of them in an order that is shuffled once.

    Args:
        total: The number of all indices.
        count: How many to return, at most all.
        turn: Which turn it is.
        seed: Of the order.

    Returns:
        `[count]`.
    """
    count = min(count, total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[torch.arange(turn * count, (turn + 1) * count) % total]
