"""The optimiser: the learning rate and the decay of the backbone, of routers' weights and of routers' biases."""

from collections.abc import Callable
from typing import Any

import torch

from routekit.network.network import RoutedNetwork
from routekit.training.schedule import TrainingConfig

# Groups of parameters, each with "params", "weight_decay" and "scale" -> the optimiser.
BuildOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


def build_optimizer(
    network: RoutedNetwork, config: TrainingConfig, build: BuildOptimizer | None = None
) -> torch.optim.Optimizer:
    """Build the optimiser over three groups. Each has a `scale` by which the schedule's learning rate is multiplied.

    A router's weights make routes differ between images, its biases do not. Only weights decay.

    Args:
        network: The network.
        config: The rates.
        build: Builds the optimiser; None for SGD.

    Returns:
        The optimiser.
    """
    routing = network.routing_parameters()
    scale = config.router_learning_rate
    weights = [parameter for parameter in routing if parameter.ndim > 1]
    biases = [parameter for parameter in routing if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": network.computing_parameters(), "scale": 1.0, "weight_decay": config.weight_decay},
        {"params": weights, "scale": scale, "weight_decay": config.router_weight_decay},
        {"params": biases, "scale": scale, "weight_decay": 0.0},
    ]
    if build is None:
        momentum = config.momentum
        nesterov = config.nesterov and momentum > 0
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=nesterov)
    optimizer = build(groups)
    for group in optimizer.param_groups:
        group.setdefault("scale", 1.0)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rates.

    Args:
        optimizer: The optimiser.
        rate: The schedule's learning rate. Each group gets it times its scale.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
