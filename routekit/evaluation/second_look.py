"""Whether a network should look again, at images mirrored: tried on validation images, at the same cost."""

from dataclasses import dataclass

import torch

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class SecondLook:
    """What a second look is worth: the accuracy on validation images without it and with it, at the same cost."""

    once: float
    again: float

    @property
    def pays(self) -> bool:
        """Whether more images are answered rightly with it."""
        return self.again > self.once


@torch.no_grad()
def try_again(
    network: RoutedNetwork, looking: RoutedNetwork, images: Images, target: float
) -> tuple[RoutedNetwork, SecondLook]:
    """Choose between a network and the same one with a second look.

    Nothing is learned for a second look, and what it costs is saved before it: fewer images get to the end.

    Args:
        network: It costs `target`.
        looking: The same network that looks again. Its stops are set here.
        images: The validation images by which is chosen.
        target: The mean cost, MACs.

    Returns:
        The network that answers more images rightly, and what was found. Of equals, the one without.
    """
    calibrate(looking, images, CostTable.measure(looking), target)
    once, again = (evaluate(each, images, CostTable.measure(each)).accuracy for each in (network, looking))
    found = SecondLook(once, again)
    return (looking if found.pays else network), found
