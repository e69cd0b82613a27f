"""Fit the rule of an "I don't know" cascade: defer where the next network corrects errors, at a price."""

from collections.abc import Callable

import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import evaluate
from routekit.network.deciders import RuleDecider
from routekit.network.network import RoutedNetwork
from routekit.routing.certainty import LearnedCertainty

HALVINGS = 16


def fit_deferral(network: RoutedNetwork, images: Images, costs: CostTable, target: float) -> None:
    """Fit the deciders with the rule "idk" to the answers of all networks.

    Each learns to defer where that lowers the expected number of errors the most. The budget sets the share of images
    that defers, which is the same at each stop.

    Args:
        network: A cascade; its deciders change.
        images: What they are fitted to.
        costs: The cost table.
        target: The mean cost, in the table's unit.
    """
    found = evaluate(network, images, costs, everywhere=True)
    assert found.leaves is not None
    share = share_for(costs.of_sections(found.routes_everywhere.double()).mean(dim=0), target)
    wrong = found.leaves.argmax(dim=2) != found.labels.unsqueeze(1)
    for number, decider in enumerate(network.deciders):
        if isinstance(decider, RuleDecider) and isinstance(decider.certainty, LearnedCertainty):
            certainty, device = decider.certainty, decider.bias.device
            fit(certainty.cpu(), found.leaves[:, number].softmax(dim=1), wrong[:, number], wrong[:, number + 1], share)
            certainty.to(device)


def share_for(costs: Tensor, target: float) -> float:
    """Find the share of images that defers at each stop for a mean cost.

    Args:
        costs: `[sections]`, what each section costs an image that reaches it.
        target: The mean cost, in the same unit.

    Returns:
        The share, between 0 and 1.
    """
    powers = torch.arange(len(costs), dtype=costs.dtype)
    return _halved(0.0, 1.0, lambda share: float((costs * share**powers).sum()) <= target)


def fit(certainty: LearnedCertainty, probabilities: Tensor, wrong: Tensor, wrong_after: Tensor, share: float) -> None:
    """Minimise the mean of (1 - a) e + a (e' + price), where a = 1 - certainty is the chance of deferring.

    Args:
        certainty: What is fitted.
        probabilities: `[N, classes]`, of the answer before deferring.
        wrong: e, `[N]`, bool, whether that answer is wrong.
        wrong_after: e', `[N]`, bool, whether the next network's answer is wrong.
        share: The share of images that is to defer: it sets the price.
    """
    before, after = wrong.to(probabilities), wrong_after.to(probabilities)

    def enough_defer(price: float) -> bool:
        torch.nn.init.ones_(certainty.weight)
        torch.nn.init.zeros_(certainty.bias)
        optimizer = torch.optim.LBFGS(certainty.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            a = 1 - certainty(probabilities)
            # A small penalty keeps the weights finite if they can separate the images.
            total: Tensor = ((1 - a) * before + a * (after + price)).mean() + 1e-4 * certainty.weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        return float((certainty(probabilities) < 0.5).double().mean()) >= share

    _halved(-1.0, 1.0, enough_defer)


def _halved(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Return about the largest number between `low` and `high` for which `holds`, which is so below it."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2
