"""What is stepped at which rate: the backbone, the routers' weights, the routers' biases."""

from collections.abc import Callable
from typing import Any

import torch

from routekit.network.network import RoutedNetwork
from routekit.training.schedule import TrainingConfig

# Groups of parameters, each with "params", "weight_decay" and "scale" -> what steps them.
BuildOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


def build_optimizer(
    network: RoutedNetwork, config: TrainingConfig, build: BuildOptimizer | None = None
) -> torch.optim.Optimizer:
    """Build the optimiser over three groups; each has a `scale` on the schedule's learning rate.

    A router's biases say what all images do, its weights what one image does differently: only these decay.

    Args:
        network: What is trained.
        config: Its rates.
        build: Builds another optimiser than SGD with Nesterov's momentum.

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
    if build is not None:
        optimizer = build(groups)
        for group in optimizer.param_groups:
            group.setdefault("scale", 1.0)
        return optimizer
    momentum = config.momentum
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=momentum > 0)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set each group's learning rate to its scale times `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
