"""Averaged weights: what is measured and kept in the place of the weights of the last step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from routekit.network.network import RoutedNetwork


class Average:
    """The exponential moving average of the weights that compute and learn, and of their batch norms' statistics.

    It is corrected at the start as the averages of Adam are (Kingma and Ba, 2015): after t steps, the weights of step i
    count in proportion to decay^(t - i), and those before training count nothing. The statistics are averaged, too, as
    in timm's ModelEmaV3: those of the last weights fit other features, and new ones would take a pass over the images.

    What decides is left out, because it is steered to the budget. So is what is frozen.

    Args:
        network: The network, with what is frozen as it is trained.
        decay: In [0, 1). With 0, nothing is averaged, and all of this does nothing.
        frozen: Whether the network's backbone stays as it is, with its statistics.
    """

    def __init__(self, network: RoutedNetwork, decay: float, *, frozen: bool = False) -> None:
        self.decay = decay
        self._now: list[Tensor] = []
        if decay > 0:
            self._now = [parameter for parameter in network.computing_parameters() if parameter.requires_grad]
            apart = [*network.banks, *network.deciders, *([network.backbone] if frozen else [])]
            left_out = {module for part in apart for module in part.modules()}
            for module in network.modules():
                if isinstance(module, _BatchNorm) and module not in left_out:
                    self._now += [each for each in (module.running_mean, module.running_var) if each is not None]
        # Before the first step, the average is the network as it is.
        self.values = [each.detach().clone() for each in self._now]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: The number of steps that are done, from 1.
        """
        share = (1 - self.decay) / (1 - self.decay**step)
        for value, now in zip(self.values, self._now, strict=True):
            value.lerp_(now, share)

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> None:
        """Go on from the `values` of an interrupted run."""
        self._put(values, self.values)

    @torch.no_grad()
    def keep(self) -> None:
        """Give the network the averages, for good."""
        self._put(self.values, self._now)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averages in this context. Afterwards it has its own weights again, to the last bit."""
        own = [each.detach().clone() for each in self._now]
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                self._put(own, self._now)

    @staticmethod
    def _put(values: list[Tensor], places: list[Tensor]) -> None:
        for value, place in zip(values, places, strict=True):
            place.copy_(value)
