"""Whether a pass on the mirrored image pays (flip TTA): measured on validation images, at the same cost."""

from dataclasses import dataclass

import torch

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class SecondLook:
    """The accuracy on validation images without a second look (`once`) and with it (`again`), at the same cost."""

    once: float
    again: float

    @property
    def pays(self) -> bool:
        """Whether more images are answered right with it."""
        return self.again > self.once


@torch.no_grad()
def try_again(
    network: RoutedNetwork, looking: RoutedNetwork, images: Images, target: float
) -> tuple[RoutedNetwork, SecondLook]:
    """Choose between a network and the same one with a second look.

    A second look needs no training. Fewer images go on past the stops before it, which saves what it costs.

    Args:
        network: It costs `target`.
        looking: The same network with a second look. Its biases change, to meet `target`.
        images: The validation images.
        target: The mean cost, MACs.

    Returns:
        The network that answers more images right, and both accuracies. If these are equal, the one without.
    """
    calibrate(looking, images, CostTable.measure(looking), target)
    once, again = (evaluate(each, images, CostTable.measure(each)).accuracy for each in (network, looking))
    found = SecondLook(once, again)
    return (looking if found.pays else network), found
