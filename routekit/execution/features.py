"""Which features each step of a program reads, on a blank image: what folding, fusing and exporting begin with."""

from collections.abc import Iterator

import torch
from torch import Tensor

from routekit.backbones.unit import evaluating, example_input
from routekit.network.execution import masked
from routekit.network.forward import forward
from routekit.network.network import RoutedNetwork
from routekit.network.program import Stem, Step
from routekit.network.state import ForwardState
from routekit.routing.gate import hard


@torch.no_grad()
def features_at(network: RoutedNetwork, images: Tensor | None = None) -> Iterator[tuple[Step, Tensor]]:
    """Run images, or a blank one, through all of the program; yield each step with the features that it reads."""
    images = example_input(network.view) if images is None else images
    state = ForwardState(
        images=images,
        spec=network.spec,
        layout=network.layout,
        gate=hard,
        execution=masked,
        exits=False,
        temperature=1.0,
        generator=None,
        routes=None,
        prices=None,
        pricing=None,
        keep_features=False,
    )
    with evaluating(network):
        for step in network.steps:
            yield step, state.view if isinstance(step, Stem) else state.x
            forward([step], state)
