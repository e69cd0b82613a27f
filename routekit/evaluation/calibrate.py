"""Set the routers' common offset so that the realised cost on validation images meets the budget."""

import torch
from torch import Tensor

from routekit.cost.model import CostModel
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import evaluate
from routekit.network.network import RoutedNetwork


def calibrate(
    network: RoutedNetwork,
    images: Images,
    costs: CostModel,
    target: float,
    *,
    indices: Tensor | None = None,
    tolerance: float = 0.002,
    tries: int = 16,
) -> float:
    """Find, by bisection, the offset at which the mean realised cost lies within `tolerance` of `target` (MACs).

    Raising the offset makes every router readier to run, which is how a threshold other than 0.5 in Eq. 11 acts.
    The network is left with the best offset seen; returns its realised cost. Routes that all images share move in
    jumps, so the tolerance may be missed: the caller reports what was realised.
    """
    offset = network.routers.offset
    low, high = None, None
    at, best_at = float(offset), float(offset)
    best = float("inf")
    step = 0.25
    for _ in range(tries):
        offset.fill_(at)
        cost = evaluate(network, images, costs, indices=indices).cost
        if abs(cost - target) < abs(best - target):
            best, best_at = cost, at
        if abs(cost - target) <= tolerance * target:
            break
        if cost > target:
            high = at
        else:
            low = at
        if low is None or high is None:
            at += -step if cost > target else step
            step *= 2
        else:
            at = (low + high) / 2
    with torch.no_grad():
        offset.fill_(best_at)
    return best
