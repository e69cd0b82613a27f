"""Whether a network should look again, at images mirrored: tried on validation images, at the same cost."""

import copy
from dataclasses import dataclass

import torch

from routekit.cost.model import CostModel
from routekit.data.image_set import Images
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.network.convert import look_again
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
def try_again(network: RoutedNetwork, images: Images, target: float) -> tuple[RoutedNetwork, SecondLook]:
    """Return `network`, which costs `target` MACs, or a copy that looks again, and what that was worth.

    Who is certain enough is decided by the rule of its exits, of which there has to be one. Nothing is learned for a
    second look, and what it costs is saved before it: fewer images get to the end. Where `images` are answered rightly
    no more often so, the network stays as it is. Raises InputError for a tree.
    """
    looking = copy.deepcopy(network)
    look_again(looking, network.exits[0].config.rule)
    calibrate(looking, images, CostModel.measure(looking), target)
    once, again = (evaluate(each, images, CostModel.measure(each)).accuracy for each in (network, looking))
    found = SecondLook(once, again)
    return (looking if found.pays else network), found
