"""Teach the networks of a cascade when to say "I don't know": by what asking on changes, and what it costs."""

import torch
from torch import Tensor

from routekit.evaluation.threshold import Asked
from routekit.network.cascade import Cascade
from routekit.routing.certainty import LearnedCertainty

# Halvings in the search for the price of asking.
HALVINGS = 16


def learn_to_know(cascade: Cascade, asked: Asked, target: float) -> None:
    """Fit the certainties of a cascade with the rule "learned" to images about which all networks were asked.

    Each network but the last learns to ask the next one where that lowers the expected number of errors most, for the
    share of images that `target`, MACs, leaves room for: the same share at each network.
    """
    share = share_for(asked.costs.mean(dim=0), target)
    wrong = asked.probabilities.argmax(dim=2) != asked.labels.unsqueeze(1)
    for number, known in enumerate(cascade.learned):
        fit(known, asked.probabilities[:, number], wrong[:, number], wrong[:, number + 1], share)


def share_for(costs: Tensor, target: float) -> float:
    """The share of images that ask on at each network for a mean cost of `target`; `costs` [k] of the networks."""
    low, high = 0.0, 1.0
    powers = torch.arange(len(costs), dtype=costs.dtype)
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if float((costs * share**powers).sum()) <= target else (low, share)
    return (low + high) / 2


def fit(known: LearnedCertainty, probabilities: Tensor, wrong: Tensor, wrong_after: Tensor, share: float) -> None:
    """Minimise the expected error plus the price of asking, mean of (1 - a) e + a (e' + price), a = 1 - certainty.

    `probabilities` [N, classes] are what is known before asking; `wrong` and `wrong_after` [N] bool whether the answer
    is wrong without asking and with it. The price is the one at which `share` of the images ask.
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
