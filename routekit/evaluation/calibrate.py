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
from routekit.network.program import margins_tell
from routekit.routing.gate import Gate, hard

# A mean cost that differs from the target by this share of it meets the target.
TOLERANCE = 0.002
# The number of evaluations, and of halvings of a range of prices.
TRIES, HALVINGS = 12, 14
# A change of a logit by so much settles any score.
STEEP = 16


@torch.no_grad()
def calibrate(
    network: RoutedNetwork,
    images: Images,
    costs: CostTable,
    target: float,
    *,
    cost_share: Tensor | None = None,
    gate: Gate = hard,
) -> float:
    """Add a common price, negated, to all biases, so that the mean realised cost of images is a budget.

    Larger biases make every router run its unit more often, as a threshold other than 0.5 in Eq. 11 of Wang et al.
    does, and let more images go on past each stop. The margins of one evaluation give the price if routes do not change
    the features of later routers. For stops alone this holds, so one evaluation is enough. Else, the next evaluation
    corrects the price. If it lies outside the bracket of the target, the middle of the bracket is tried.

    A mean cost moves in jumps if all images share a route. Then the tolerance may be missed. Where decisions are
    sampled, or where scores halt a stage, margins do not say what an image costs at another price, which is found by
    halving.

    Args:
        network: Its biases change, to the best ones that were tried.
        images: On which the budget is met.
        costs: The cost table.
        target: The mean cost, in the table's unit.
        cost_share: `[columns]`, the price of each column if a unit has price 1. None for `CostTable.cost_share`.
        gate: How inference decides.

    Returns:
        The realised mean cost.
    """
    before = network.bias
    share = (costs.cost_share if cost_share is None else cost_share).to(before)
    if gate is not hard or not margins_tell(network.steps):
        return _halve(network, images, costs, target, share, gate)
    if network.stops and not (share[costs.layout.of_units] > 0).any():
        margins = evaluate(network, images, costs, everywhere=True).margins

        def cost_at(at: float) -> float:
            return float(costs.of_routes(costs.layout.choose(margins + at * share.cpu())).mean())

        at = -price_for(margins, costs, target, share)
        # If the budget suffices for all, the lowest price is that of an image, whose decision rounding could change.
        at += 1.0 if cost_at(at + 1.0) <= target else 0.0
        network.set_bias(before + at * share)
        return cost_at(at)
    at, best_at, best = 0.0, 0.0, math.inf
    low, high = -math.inf, math.inf
    for _ in range(TRIES):
        measured = evaluate(network, images, costs, everywhere=bool(network.stops))
        excess = measured.cost - target
        if abs(excess) < abs(best - target):
            best, best_at = measured.cost, at
        if abs(excess) <= TOLERANCE * target:
            break
        low, high = (low, min(high, at)) if excess > 0 else (max(low, at), high)
        # Half of the excess is taken off the target, because the routes changed what later routers read.
        guess = -price_for(measured.margins - at * share.cpu(), costs, target - 0.5 * excess, share)
        if not low < guess < high:
            # Without a bracket yet, a step of 1 is sure to change routes.
            guess = (low + high) / 2 if math.isfinite(high - low) else at - math.copysign(1.0, excess)
        at = guess
        network.set_bias(before + at * share)
    network.set_bias(before + best_at * share)
    return best


def _halve(network: RoutedNetwork, images: Images, costs: CostTable, target: float, share: Tensor, gate: Gate) -> float:
    """As `calibrate`, where margins do not say what an image costs; what is sampled is so by the same numbers."""
    before, found = network.bias, dict[float, float]()

    def cost_at(at: float) -> float:
        network.set_bias(before + at * share)
        found[at] = evaluate(network, images, costs, gate=gate).cost
        return found[at]

    # Larger biases cost more. The first step is doubled until the target lies between.
    low = high = 0.0
    step, found_it = (1.0 if cost_at(0.0) < target else -1.0), False
    for _ in range(TRIES):
        low, high = (high, high + step) if step > 0 else (low + step, low)
        near, end = (low, high) if step > 0 else (high, low)
        found_it = (cost_at(end) - target) * step >= 0
        # Or no price changes the cost any more. Small ones may not yet: scores have to add up to 1.
        if found_it or (found[end] == found[near] and abs(step) >= STEEP):
            break
        step *= 2
    for _ in range(HALVINGS if found_it else 0):
        middle = (low + high) / 2
        cost = cost_at(middle)
        if abs(cost - target) <= TOLERANCE * target:
            break
        low, high = (low, middle) if cost > target else (middle, high)
    best = min(found, key=lambda at: abs(found[at] - target))
    network.set_bias(before + best * share)
    return found[best]


@torch.no_grad()
def set_price(network: RoutedNetwork, images: Images, costs: CostTable, target: float) -> float:
    """Set the price of a network that decides at several prices, so that the mean realised cost is a budget.

    It halves the range of learned prices, in logarithms: the higher the price, the lower the cost.

    Args:
        network: Its price changes, to the best one that was tried.
        images: On which the budget is met.
        costs: The cost table.
        target: The mean cost, MACs.

    Returns:
        The realised mean cost.

    Raises:
        InputError: The target is under the cost at the highest price, or over that at the lowest.
    """
    found: dict[float, float] = {}

    def cost_at(price: float) -> float:
        network.set_price(price)
        found[price] = evaluate(network, images, costs).cost
        return found[price]

    def take_best() -> float:
        best = min(found, key=lambda price: abs(found[price] - target))
        network.set_price(best)
        return found[best]

    assert network.pricing is not None
    low, high = network.pricing.range.lowest, network.pricing.range.highest
    most, least = cost_at(low), cost_at(high)
    if not (1 - TOLERANCE) * least <= target <= (1 + TOLERANCE) * most:
        take_best()
        raise InputError(
            f"a mean cost of {describe(target)} is out of reach: at the prices that it learned, this network costs "
            f"{describe(least)} to {describe(most)}"
        )
    for _ in range(HALVINGS):
        if min(abs(cost - target) for cost in found.values()) <= TOLERANCE * target:
            break
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost_at(middle) > target else (low, middle)
    return take_best()
