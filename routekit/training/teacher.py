"""The teacher: the dense network that another one began as."""

from dataclasses import replace

import torch
from torch import Tensor

from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace


class Teacher:
    """What the dense `network` makes of a batch, for `learner` to learn from; its features too, with `features`.

    A learner whose own units are frozen as they were, and all run, has said already what the teacher would.
    """

    def __init__(self, network: RoutedNetwork, learner: RoutedNetwork, *, frozen: bool, features: bool) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.features = features
        # It says so at its end: what comes behind that, a second look, is no answer of the dense network.
        self.is_learner = frozen and not (learner.junctions or learner.looks_again) and _are_equal(network, learner)

    @torch.no_grad()
    def __call__(self, x: Tensor, said: RouteTrace) -> RouteTrace:
        """Images [B, C, H, W], normalised, and what the learner made of them -> the trace of the dense network."""
        if self.is_learner:
            return replace(said, logits=said.leaves[-1], features=said.features[-1:])
        trace: RouteTrace = self.network(x, keep_features=self.features)
        return trace


def _are_equal(one: RoutedNetwork, two: RoutedNetwork) -> bool:
    """Whether both are the same original network, to the last bit."""
    first, second = (network.backbone.state_dict() for network in (one, two))
    return first.keys() == second.keys() and all(
        value.shape == second[name].shape and torch.equal(value.to(second[name].device), second[name])
        for name, value in first.items()
    )
