"""Bring a routed network into the form in which it runs fastest."""

import copy
from typing import overload

import torch
from torch import Tensor

from routekit.execution.cascade import CascadeExecutor
from routekit.execution.executor import SparseExecutor
from routekit.execution.fold import fold, fold_parts
from routekit.execution.fuse import fuse
from routekit.execution.measured import MeasuredExecutor
from routekit.network.cascade import Cascade
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FullyConnectedRouters
from routekit.routing.stacked import StackedRouters


@overload
def prepare(network: RoutedNetwork) -> RoutedNetwork: ...


@overload
def prepare(network: Cascade) -> Cascade: ...


def prepare(network: RoutedNetwork | Cascade) -> RoutedNetwork | Cascade:
    """Copy `network` for inference: batch norms folded, routers stacked, channels-last; the same decisions."""
    if isinstance(network, Cascade):
        return network.each(prepare)
    network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    network.stand_alone()
    fold(network)
    fold_parts(network)
    for each in network.exits:
        each.fold()
    if isinstance(network.routers, FullyConnectedRouters):
        network.routers = StackedRouters(network.routers, network.groups).to(next(network.parameters()).device)
        network.dial = None  # the price is folded in with the rest
    network.to(memory_format=torch.channels_last)
    return network


@overload
def optimize(network: RoutedNetwork, images: Tensor | None = None) -> SparseExecutor | MeasuredExecutor: ...


@overload
def optimize(network: Cascade, images: Tensor | None = None) -> CascadeExecutor: ...


def optimize(
    network: RoutedNetwork | Cascade, images: Tensor | None = None
) -> SparseExecutor | MeasuredExecutor | CascadeExecutor:
    """Build the fast form of a trained network, or of a cascade, for inference: same routes and logits up to rounding.

    With `images` [N, C, H, W], normalised, it is measured at which batch sizes computing only what is needed is faster
    than computing everything; the faster form is taken, and `choices` of the result says which.

    >>> answer = optimize(network)(images)  # [B, C, H, W], normalised -> answer.logits, answer.routes
    """
    if isinstance(network, Cascade):
        return CascadeExecutor(network, [optimize(each, images) for each in network.networks])
    fast = fuse(prepare(network))
    return SparseExecutor(fast) if images is None else MeasuredExecutor(fast, images)
