"""Meet a budget without training: by a common bias, or by a price, on validation images."""

import math

import torch
from torch import Tensor

from routekit.cost.price import price_for
from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.macs import describe
from routekit.network.network import RoutedNetwork


@torch.no_grad()
def calibrate(
    network: RoutedNetwork,
    images: Images,
    costs: CostTable,
    target: float,
    *,
    cost_share: Tensor | None = None,
    indices: Tensor | None = None,
    tolerance: float = 0.002,
    tries: int = 12,
) -> float:
    """Find what to add to all biases for the mean realised cost of images to be a budget.

    Raising the biases makes every router readier to run, which is how a threshold other than 0.5 in Eq. 11 acts; it
    lets more images go on past each stop. The margins of one evaluation say how much would do if routes did not change
    what later routers see. Where that guess leaves what is known to bracket the target, the middle of the bracket is
    tried instead. Of stops alone, one evaluation says all. Routes that all images share move in jumps, so the tolerance
    may be missed: the caller reports what was realised.

    Args:
        network: It is left with the best biases seen.
        images: On which the budget is met.
        costs: The cost table.
        target: The mean cost, in the table's unit.
        cost_share: `[columns]`, how what is added is shared out (`CostTable.cost_share`).
        indices: Of the images that count; None for all.
        tolerance: How far from the target is near enough, as a share of it.
        tries: How many evaluations there may be.

    Returns:
        The realised cost.
    """
    before = network.bias
    share = (costs.cost_share if cost_share is None else cost_share).to(before)
    if network.stops and not (share[costs.layout.of_units] > 0).any():
        margins = evaluate(network, images, costs, indices=indices, everywhere=True).margins

        def cost_at(at: float) -> float:
            return float(costs.of_routes(costs.layout.choose(margins + at * share.cpu())).mean())

        at = -price_for(margins, costs, target, cost_share=share)
        # Where all can be afforded, the lowest price is that of one of the images, and rounding would decide.
        at += 1.0 if cost_at(at + 1.0) <= target else 0.0
        network.set_bias(before + at * share)
        return cost_at(at)
    at = 0.0
    low, high = -math.inf, math.inf
    best, best_at = math.inf, at
    for _ in range(tries):
        measured = evaluate(network, images, costs, indices=indices, everywhere=bool(network.stops))
        excess = measured.cost - target
        if abs(excess) < abs(best - target):
            best, best_at = measured.cost, at
        if abs(excess) <= tolerance * target:
            break
        low, high = (low, min(high, at)) if excess > 0 else (max(low, at), high)
        # What the routes did to later routers is corrected for by as much as it missed.
        guess = -price_for(measured.margins - at * share.cpu(), costs, target - 0.5 * excess, cost_share=share)
        if not low < guess < high:
            # Where nothing brackets the target yet, go on by a step that is sure to move.
            guess = (low + high) / 2 if math.isfinite(high - low) else at - math.copysign(1.0, excess)
        at = guess
        network.set_bias(before + at * share)
    network.set_bias(before + best_at * share)
    return best


@torch.no_grad()
def set_price(
    network: RoutedNetwork,
    images: Images,
    costs: CostTable,
    target: float,
    *,
    tolerance: float = 0.002,
    tries: int = 14,
) -> float:
    """Set the price of an adaptive network so that the mean realised cost of `images` is nearest to `target` MACs.

    By halving the range of prices it has learned, in logarithms: the dearer computing is, the less of it is done.
    Returns the cost. Raises InputError for a target under what its highest price gives, or over what its lowest does.
    """

    def cost_at(price: float) -> float:
        network.set_price(price)
        return evaluate(network, images, costs).cost

    assert network.pricing is not None
    low, high = network.pricing.range.lowest, network.pricing.range.highest
    found = {price: cost_at(price) for price in (low, high)}
    if not (1 - tolerance) * found[high] <= target <= (1 + tolerance) * found[low]:
        network.set_price(min(found, key=lambda price: abs(found[price] - target)))
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
    network.set_price(best)
    return found[best]
