"""Bring a routed network into the form in which it runs fastest."""

import copy

import torch
from torch import Tensor

from routekit.execution.executor import SparseExecutor
from routekit.execution.fold import fold, settle_weights
from routekit.execution.fuse import fuse
from routekit.execution.measured import MeasuredExecutor
from routekit.network.network import RoutedNetwork
from routekit.network.program import Units
from routekit.routing.router import FullyConnectedRouters
from routekit.routing.stacked import StackedRouters


def prepare(network: RoutedNetwork) -> RoutedNetwork:
    """Copy `network` for inference: batch norms folded, routers stacked, channels-last; the same decisions."""
    network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    network.stand_alone()
    settle_weights(network)
    fold(network)
    for decider in network.deciders:
        decider.fold()
    device = next(network.parameters()).device
    for bank in network.banks:
        if isinstance(bank, FullyConnectedRouters):
            steps = [step for step in network.steps if isinstance(step, Units) and step.routers is bank]
            stacked = StackedRouters(bank, [group for step in steps for group in step.groups]).to(device)
            for step in steps:
                step.routers = stacked
            network.pricing = None  # the price is folded in with the rest
    network.register()
    network.to(memory_format=torch.channels_last)
    return network


def optimize(network: RoutedNetwork, images: Tensor | None = None) -> SparseExecutor | MeasuredExecutor:
    """Build the fast form of a network for inference: the same routes and, up to rounding, logits.

    >>> answer = optimize(network)(images)  # [B, C, H, W], normalised -> answer.logits, answer.routes

    Args:
        network: A trained network.
        images: `[N, C, H, W]`, normalised. With these it is measured at which batch sizes computing only what is needed
            is faster than computing everything. The faster form is taken, and `choices` of the result says which.

    Returns:
        What answers a batch of images.
    """
    fast = fuse(prepare(network))
    return SparseExecutor(fast) if images is None else MeasuredExecutor(fast, images)
