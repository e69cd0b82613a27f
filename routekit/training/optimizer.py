"""What is stepped at which rate: the backbone, the routers' weights, the routers' biases."""

import torch

from routekit.network.network import RoutedNetwork
from routekit.training.schedule import TrainingConfig


def build_optimizer(network: RoutedNetwork, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum over three groups; each has a `scale` on the schedule's learning rate.

    A router's biases say what all images do, its weights what one image does differently: only these decay.
    """
    routing = network.routing_parameters()
    scale = config.router_learning_rate
    return torch.optim.SGD(
        [
            {"params": network.computing_parameters(), "scale": 1.0, "weight_decay": config.weight_decay},
            {
                "params": [parameter for parameter in routing if parameter.ndim > 1],
                "scale": scale,
                "weight_decay": config.router_weight_decay,
            },
            {
                "params": [parameter for parameter in routing if parameter.ndim == 1],
                "scale": scale,
                "weight_decay": 0.0,
            },
        ],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set each group's learning rate to its scale times `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
