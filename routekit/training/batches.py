"""Which images a step sees: a function of seed, step and process alone, so that a resumed run sees the same."""

from collections.abc import Iterator

import torch
from torch import Tensor

from routekit.data.image_set import Images


def step_seed(seed: int, *place: int) -> int:
    """A seed for one place (epoch, step, process) in a run: resuming there needs no stored generator."""
    value = seed
    for number in place:
        value = (value * 1_000_003 + number + 1) % (2**63 - 1)
    return value


class Batches:
    """The batches of one process: uint8 images [b, 3, H, W] and labels [b], shuffled anew in each epoch.

    A step's `batch_size` samples are split over `world` processes, of which this is number `rank`.
    """

    def __init__(self, images: Images, batch_size: int, *, seed: int, rank: int, world: int) -> None:
        self.images, self.batch_size, self.seed, self.rank, self.world = images, batch_size, seed, rank, world
        self.steps_per_epoch = max(1, len(images) // batch_size)
        self._epoch: Iterator[tuple[Tensor, Tensor]] | None = None
        self._next = -1

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step; steps in order read ahead, any other step starts its epoch's reading there."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or step != self._next or place == 0:
            self._epoch = self._read(epoch, place)
        self._next = step + 1
        return next(self._epoch)

    def _read(self, epoch: int, place: int) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle = torch.Generator().manual_seed(step_seed(self.seed, epoch))
        order = torch.randperm(len(self.images), generator=shuffle)
        steps = order[: self.steps_per_epoch * self.batch_size].view(-1, self.batch_size)
        mine = steps[place:, self.rank :: self.world]
        return iter(self.images.batches(mine.flatten(), mine.shape[1]))


def rotating(total: int, count: int, turn: int, seed: int) -> Tensor:
    """The `turn`-th `count` indices of `total`, which rotate through all of them in an order shuffled once."""
    count = min(count, total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[torch.arange(turn * count, (turn + 1) * count) % total]
