"""Routers that run each unit for a given share of images, for timing an untrained network."""

import torch
from torch import Tensor, nn

from routekit.network.network import RoutedNetwork
from routekit.routing.gate import one_hot
from routekit.routing.router import FullyConnectedRouters


@torch.no_grad()
def set_run_rate(network: RoutedNetwork, images: Tensor, rate: float, seed: int = 0) -> None:
    """Give the routers random weights, and biases by which each unit runs for the share `rate` of `images`.

    Routes differ between images as far as their features do. For a batch that is the worst case: a trained network's
    images agree about many units.

    Args:
        network: A network with fully connected routers. It is changed in place.
        images: `[B, C, H, W]`, normalised.
        rate: The share of images for which each unit runs, between 0 and 1.
        seed: Of the random weights.
    """
    assert isinstance(network.routers, FullyConnectedRouters)
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.routers.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    routers, place = network.routers, 0

    def standardize(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Let a router's normalisation have seen what it reads."""
        norm.running_mean, norm.running_var = inputs[0].mean(0), inputs[0].var(0)

    def gate(logits: Tensor, **_: object) -> Tensor:
        """Set the bias of the next router, so that the wanted share of images runs its unit."""
        nonlocal place
        margins = logits[:, 0] - logits[:, 1]
        # Between two neighbouring images, so that none sits on the threshold.
        ranked = margins.sort(descending=True).values
        count = min(max(round(rate * len(ranked)), 1), len(ranked) - 1)
        threshold = (ranked[count - 1] + ranked[count]) / 2
        routers.bias[place] -= threshold
        place += 1
        return one_hot((margins <= threshold).long(), logits)

    norms = [module for module in routers.modules() if isinstance(module, nn.BatchNorm1d)]
    hooks = [norm.register_forward_pre_hook(standardize) for norm in norms]
    network(images, gate=gate)
    for hook in hooks:
        hook.remove()
