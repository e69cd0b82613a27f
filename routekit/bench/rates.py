"""Routers that run each unit for a given share of images, for timing a network that nobody has trained yet."""

import torch
from torch import Tensor

from routekit.execution.executor import execute
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FullyConnectedRouters


@torch.no_grad()
def set_run_rate(network: RoutedNetwork, images: Tensor, rate: float, seed: int = 0) -> None:
    """Give the routers random weights, and offsets by which each unit runs for the share `rate` of `images`.

    `images` [B, C, H, W], normalised. Routes differ between images as far as their features do: that is the shape of
    the worst case for a batch, where a trained network's images agree about many units.
    """
    assert isinstance(network.routers, FullyConnectedRouters)
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.routers.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    # What a unit reads depends on who ran the ones before it.
    x = network.view.stem(images).clone()
    routers, index = network.routers, 0
    for unit in network.view.units:
        if not unit.decides:
            x = unit.run(x)
            continue
        normalize = network.routers.routers[index][0]  # type: ignore[index]
        if isinstance(normalize, torch.nn.BatchNorm1d):
            pooled = x.mean((2, 3))
            normalize.running_mean, normalize.running_var = pooled.mean(0), pooled.var(0)
        margins, _ = routers.survey(range(index, index + 1), x)
        # Between two neighbouring images, so that none sits on the threshold.
        ranked = margins[:, 0].sort(descending=True).values
        count = min(max(round(rate * len(ranked)), 1), len(ranked) - 1)
        threshold = (ranked[count - 1] + ranked[count]) / 2
        routers.bias[index] -= threshold
        runs = margins[:, 0] > threshold
        x = execute(unit, x, [runs.nonzero().squeeze(1).cpu().numpy()])[0] if runs.any() else unit.take(x, -1)
        index += 1
