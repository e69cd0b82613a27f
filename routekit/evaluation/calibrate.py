"""Set the routers' common offset so that the realised cost on validation images meets the budget."""

import math

import torch
from torch import Tensor

from routekit.cost.model import CostModel
from routekit.cost.price import price_for
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.macs import describe
from routekit.network.network import RoutedNetwork


@torch.no_grad()
def calibrate(
    network: RoutedNetwork,
    images: Images,
    costs: CostModel,
    target: float,
    *,
    stakes: Tensor | None = None,
    indices: Tensor | None = None,
    tolerance: float = 0.002,
    tries: int = 12,
) -> float:
    """Find what to add to all offsets for the mean realised cost to lie within `tolerance` of `target` (MACs).

    What is added is per unit; to an exit's offset, it is added for each of the units behind it (`CostModel.stakes`, or
    `stakes`).

    Raising the offsets makes every router readier to run, which is how a threshold other than 0.5 in Eq. 11 acts.
    The margins of one pass say how much would do if routes did not change what later routers see; where that
    guess leaves what is known to bracket the target, the middle of the bracket is tried instead. The network is left
    with the best offsets seen; returns its realised cost. Routes that all images share move in jumps, so the tolerance
    may be missed: the caller reports what was realised. Of exits alone, one pass says all.
    """
    before = network.offset
    stakes = (costs.stakes if stakes is None else stakes).to(before)
    if network.exits and not network.junctions:
        margins = evaluate(network, images, costs, indices=indices, everywhere=True).margins
        at = -price_for(margins, costs, target, stakes=stakes)
        network.set_offset(before + at * stakes)
        return float(costs.of_routes(costs.layout.choose(margins + at * stakes.cpu())).mean())
    at = 0.0
    low, high = -math.inf, math.inf
    best, best_at = math.inf, at
    for _ in range(tries):
        measured = evaluate(network, images, costs, indices=indices, everywhere=bool(network.exits))
        excess = measured.cost - target
        if abs(excess) < abs(best - target):
            best, best_at = measured.cost, at
        if abs(excess) <= tolerance * target:
            break
        low, high = (low, min(high, at)) if excess > 0 else (max(low, at), high)
        # What the routes did to later routers is corrected for by as much as it missed.
        guess = -price_for(measured.margins - at * stakes.cpu(), costs, target - 0.5 * excess, stakes=stakes)
        if not low < guess < high:
            # Where nothing brackets the target yet, go on by a step that is sure to move.
            guess = (low + high) / 2 if math.isfinite(high - low) else at - math.copysign(1.0, excess)
        at = guess
        network.set_offset(before + at * stakes)
    network.set_offset(before + best_at * stakes)
    return best


@torch.no_grad()
def set_price(
    network: RoutedNetwork,
    images: Images,
    costs: CostModel,
    target: float,
    *,
    tolerance: float = 0.002,
    tries: int = 14,
) -> float:
    """Set the dial of an adaptive network so that the mean realised cost of `images` is nearest to `target` MACs.

    By halving the range of prices it has learned, in logarithms: the dearer computing is, the less of it is done.
    Returns the cost. Raises InputError for a target under what its highest price gives, or over what its lowest does.
    """

    def cost_at(price: float) -> float:
        network.set_dial(price)
        return evaluate(network, images, costs).cost

    assert network.dial is not None
    low, high = network.dial.range.lowest, network.dial.range.highest
    found = {price: cost_at(price) for price in (low, high)}
    if not (1 - tolerance) * found[high] <= target <= (1 + tolerance) * found[low]:
        network.set_dial(min(found, key=lambda price: abs(found[price] - target)))
        raise InputError(
            f"a mean cost of {describe(target)} is out of reach: at the prices that it learned, this network costs "
            f"{describe(found[high])} to {describe(found[low])}"
        )
    for _ in range(tries):
        best = min(found, key=lambda price: abs(found[price] - target))
        if abs(found[best] - target) <= tolerance * target:
            break
        middle = math.sqrt(low * high)
        found[middle] = cost_at(middle)
        low, high = (middle, high) if found[middle] > target else (low, middle)
    best = min(found, key=lambda price: abs(found[price] - target))
    network.set_dial(best)
    return found[best]
