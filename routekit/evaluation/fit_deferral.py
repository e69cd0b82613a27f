"""Fit the rule of an "I don't know" cascade: by what deferring to the next network changes, and what it costs."""

import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import evaluate
from routekit.network.deciders import RuleDecider
from routekit.network.network import RoutedNetwork
from routekit.routing.certainty import LearnedCertainty

# Halvings in the search for the price of deferring.
HALVINGS = 16


def fit_deferral(network: RoutedNetwork, images: Images, costs: CostTable, target: float) -> None:
    """Fit the deciders with the rule "idk" to images about which all networks are asked.

    Each learns to defer where that lowers the expected number of errors most, for the share of images that the budget
    leaves room for: the same share at each stop.

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
            known, device = decider.certainty, decider.bias.device
            fit(known.cpu(), found.leaves[:, number].softmax(dim=1), wrong[:, number], wrong[:, number + 1], share)
            known.to(device)


def share_for(costs: Tensor, target: float) -> float:
    """Find the share of images that defers at each stop for a mean cost of `target`; `costs` `[sections]`."""
    low, high = 0.0, 1.0
    powers = torch.arange(len(costs), dtype=costs.dtype)
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if float((costs * share**powers).sum()) <= target else (low, share)
    return (low + high) / 2


def fit(known: LearnedCertainty, probabilities: Tensor, wrong: Tensor, wrong_after: Tensor, share: float) -> None:
    """Minimise the expected error plus the price of deferring.

    That is the mean of (1 - a) e + a (e' + price), with a = 1 - certainty.

    Args:
        known: What is fitted.
        probabilities: `[N, classes]`, of the answer before deferring.
        wrong: `[N]`, bool, whether that is wrong.
        wrong_after: `[N]`, bool, whether the answer is wrong with the next network.
        share: The share of images that is to defer: it sets the price.
    """
    before, after = wrong.to(probabilities), wrong_after.to(probabilities)
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        price = (low + high) / 2
        torch.nn.init.ones_(known.weight)
        torch.nn.init.zeros_(known.bias)
        optimizer = torch.optim.LBFGS(known.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss(price: float = price, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            asks = 1 - known(probabilities)
            # A little of the weights' size keeps them finite where the images can be told apart.
            total: Tensor = ((1 - asks) * before + asks * (after + price)).mean() + 1e-4 * known.weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[no-untyped-call]
        asking = float((known(probabilities) < 0.5).double().mean())
        low, high = (low, price) if asking < share else (price, high)
