"""A kind of junction that exists here alone: an image skips the units whose index shares a bit with a hash of it."""

from typing import ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from routekit.backbones.unit import Sink
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.routing.router import RouterBank


class HashRouters(RouterBank):
    """Asked about the image: what its mean colour, hashed to `bits` bits, says of each unit."""

    surveys = sees_image = True

    def __init__(self, count: int, bits: int) -> None:
        super().__init__(count)
        index = torch.arange(1, count + 1)
        masks = (index.unsqueeze(1) >> torch.arange(bits)) % 2
        self.register_buffer("masks", masks.float())  # [n, bits], which bits each index has
        self.register_buffer("powers", 2.0 ** torch.arange(bits))

    def policy(self, images: Tensor) -> Tensor:
        """Images -> logits [B, n, 2]: ahead by about 1 or -1, and by a little that tells images apart."""
        mean = images.mean(dim=(2, 3)) @ torch.tensor([[3.1], [7.3], [12.7]])[: images.shape[1]]
        hashed = torch.remainder(torch.floor(40 * mean), 2 * self.powers[-1])
        bits = torch.remainder(torch.floor(hashed / self.powers), 2.0)  # [B, bits]
        shares = (bits @ self.masks.t() > 0).float()
        runs = 1 - 2 * shares + 0.3 * torch.sin(mean * (1 + self.masks.sum(dim=1)))
        return torch.stack([runs, torch.zeros_like(runs)], dim=2)


@junctions.register("mean_colour")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class MeanColour(Junction):
    """Skips by a hash of the mean colour.

    Attributes:
        bits: The length of the hash.
    """

    about: ClassVar[str] = "which units run, by a hash of the mean colour"
    cheapest: ClassVar[str] = "every unit skipped"

    bits: int = 4

    def attach(self, draft: Draft) -> None:
        """Let each unit be skipped, and ask the hash about all of them."""
        for unit in draft.view.units:
            unit.sinks = (Sink.RUN, Sink.SKIP) if unit.skippable else unit.sinks
        draft.bank = HashRouters(sum(unit.decides for unit in draft.view.units), self.bits)
