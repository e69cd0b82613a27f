"""The faster form at each batch size, by measurement on this machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from routekit.errors import InputError
from routekit.execution.executor import Answer, MaskedExecutor, SparseExecutor
from routekit.execution.timing import DISTINCT, in_turns
from routekit.network.network import RoutedNetwork

BATCHES = (1, 8, 64)


@dataclass(frozen=True)
class Choice:
    """What was measured at a batch size; times are typical ones, milliseconds a batch."""

    batch: int
    sparse_ms: float
    masked_ms: float

    @property
    def sparse(self) -> bool:
        """Whether it is faster to compute only what is needed."""
        return self.sparse_ms <= self.masked_ms

    def __str__(self) -> str:
        if self.sparse:
            return (
                f"batch {self.batch}: sparse, {self.sparse_ms:.2f} ms (computing everything: {self.masked_ms:.2f} ms)"
            )
        return (
            f"batch {self.batch}: everything is computed, {self.masked_ms:.2f} ms, because routing does not pay here "
            f"(sparse: {self.sparse_ms:.2f} ms)"
        )


class MeasuredExecutor(nn.Module):
    """Executes a network in the form that was faster on some images, at the nearest batch size.

    `choices` holds what was measured.

    Args:
        network: A network that is prepared.
        images: `[N, C, H, W]`, normalised.
        batches: The batch sizes.
        seconds: How long each is measured.

    Raises:
        InputError: There are no images.
    """

    def __init__(
        self, network: RoutedNetwork, images: Tensor, *, batches: Sequence[int] = BATCHES, seconds: float = 1.0
    ) -> None:
        super().__init__()
        if not len(images):
            raise InputError("to measure which form is faster takes images")
        self.sparse, self.masked = SparseExecutor(network), MaskedExecutor(network)
        images = images.to(next(network.parameters()).device)
        self.choices = []
        for batch in sorted({min(batch, len(images)) for batch in batches}):
            parts = [
                part.contiguous(memory_format=torch.channels_last)
                for part in torch.split(images, batch)
                if len(part) == batch
            ][:DISTINCT]
            timings = in_turns({"sparse": self.sparse, "masked": self.masked}, parts, seconds=seconds)
            self.choices.append(Choice(batch, timings["sparse"].typical, timings["masked"].typical))

    def forward(self, x: Tensor) -> Answer:
        """Images [B, C, H, W], normalised -> their logits and margins."""
        nearest = min(self.choices, key=lambda choice: abs(math.log(choice.batch / max(len(x), 1))))
        answer: Answer = (self.sparse if nearest.sparse else self.masked)(x)
        return answer
