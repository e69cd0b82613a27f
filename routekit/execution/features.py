"""Which features each step of a program reads, on a blank image: what folding, fusing and exporting begin with."""

from collections.abc import Iterator

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating, example_input
from routekit.network.forward import forward
from routekit.network.network import RoutedNetwork
from routekit.network.program import Stem, Step
from routekit.network.state import ForwardState


@torch.no_grad()
def features_at(network: RoutedNetwork, images: Tensor | None = None) -> Iterator[tuple[Step, Tensor]]:
    """Run images through all of a program.

    Args:
        network: The network.
        images: `[B, C, H, W]`, normalised; None for a blank one.

    Yields:
        Each step, and the features that it reads.
    """
    images = example_input(network.view) if images is None else images
    state = ForwardState(images, network.spec, network.layout)
    with evaluating(network):
        for step in network.steps:
            yield step, state.view if isinstance(step, Stem) else state.x
            forward([step], state)
