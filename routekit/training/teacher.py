"""The teacher: the dense network that a routed one began as."""

from dataclasses import replace

import torch
from torch import Tensor

from routekit.network.network import RoutedNetwork
from routekit.routing.decision import RouteTrace


class Teacher:
    """Gives the answers of the dense network, and its features, from which a network learns.

    A learner whose own units are frozen, and all run, computes the same. Then the teacher does not run.

    Attributes:
        network: The dense network.
        features: Whether its features are wanted.
        is_learner: Whether the learner computes the same.
    """

    def __init__(self, network: RoutedNetwork, learner: RoutedNetwork, *, frozen: bool, features: bool) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.features = features
        # The last answer must be the dense network's own. That of a second look is not.
        self.is_learner = frozen and not (learner.junctions or learner.looks_again) and _are_equal(network, learner)

    @torch.no_grad()
    def __call__(self, x: Tensor, learned: RouteTrace) -> RouteTrace:
        """Run the dense network.

        Args:
            x: Images `[B, C, H, W]`, normalised.
            learned: The learner's trace of them.

        Returns:
            The dense network's trace.
        """
        if self.is_learner:
            return replace(learned, logits=learned.leaves[-1], features=learned.features[-1:])
        trace: RouteTrace = self.network(x, keep_features=self.features)
        return trace


def _are_equal(one: RoutedNetwork, two: RoutedNetwork) -> bool:
    """Return whether both are the same original network, to the last bit."""
    first, second = (network.backbone.state_dict() for network in (one, two))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
