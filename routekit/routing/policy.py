"""Policies over a tree of junctions: what inference is expected to cost, and what each decision should have been worth.

After McGill and Perona, "Deciding How to Decide: Dynamic Routing in Artificial Neural Networks" (2017), section 4;
equation numbers are theirs. Everything is per image, [B], and differentiable wherever its inputs are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.registry import Registry
from routekit.routing.decision import GO, Layout, RouteTrace
from routekit.routing.gate import one_hot

# Scores [B, K] of a junction's sinks -> the probability [B, K] with which each is taken.
Choice = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subnetwork:
    """A network, or what is left of it behind a junction: a leaf, which answers, or a junction and what lies behind it.

    cost:   [B] c_cpt of getting from the junction before to here: k_cpt times its multiply-adds (Eq. 2)
    error:  [B] c_err of the answer; of a leaf
    scores: [B, K] s_j, what a router makes of each sink; of a junction
    sinks:  the subnetworks behind the junction
    """

    cost: Tensor
    error: Tensor | None = None
    scores: Tensor | None = None
    sinks: tuple["Subnetwork", ...] = ()


def softly(temperature: float, *, epsilon: float = 0.0) -> Choice:
    """Softmax of the scores at a temperature (Eq. 4), mixed with `epsilon` of the uniform distribution."""

    def choose(scores: Tensor) -> Tensor:
        return (1 - epsilon) * torch.softmax(scores / temperature, dim=1) + epsilon / scores.shape[1]

    return choose


def sampled(choice: Choice, generator: torch.Generator | None = None) -> Choice:
    """Draw one sink from what `choice` gives: the d-hat of section 4, a constant in the gradient."""

    def choose(scores: Tensor) -> Tensor:
        drawn = torch.multinomial(choice(scores).detach().cpu(), 1, generator=generator).squeeze(1)
        return one_hot(drawn.to(scores.device), scores)

    return choose


def greedily(scores: Tensor) -> Tensor:
    """The sink with the largest score: the inference routing policy (section 3)."""
    return one_hot(scores.argmax(dim=1), scores)


def expected_cost(network: Subnetwork, choice: Choice) -> Tensor:
    """[B] E[c_inf] (Eq. 1 and 3), exactly: each sink by the probability with which it is taken."""
    if network.error is not None:
        return network.cost + network.error
    assert network.scores is not None
    behind = torch.stack([expected_cost(sink, choice) for sink in network.sinks], dim=1)
    return network.cost + (choice(network.scores) * behind).sum(dim=1)


def least_cost(network: Subnetwork) -> Tensor:
    """[B] min over d of c_inf: what the best decisions would have cost (Eq. 8)."""
    if network.error is not None:
        return network.cost + network.error
    return network.cost + torch.stack([least_cost(sink) for sink in network.sinks], dim=1).amin(dim=1)


# What the decisions downstream of a sink are taken to cost, when its utility is learned.
critics: Registry[Callable[[Subnetwork], Tensor]] = Registry("critic")


@critics.register("pragmatic")
def pragmatic(network: Subnetwork) -> Tensor:
    """Downstream, the routers decide as they do now (Eq. 7)."""
    return expected_cost(network, greedily)


@critics.register("optimistic")
def optimistic(network: Subnetwork) -> Tensor:
    """Downstream, every decision is the best one (Eq. 8)."""
    return least_cost(network)


def over_junctions(network: Subnetwork, choice: Choice, term: Callable[[Subnetwork], Tensor]) -> Tensor:
    """[B] the sum of `term` over the junctions that an image meets, each by the probability of meeting it."""
    if network.error is not None:
        return torch.zeros_like(network.cost)
    assert network.scores is not None
    behind = torch.stack([over_junctions(sink, choice, term) for sink in network.sinks], dim=1)
    # Which junctions are met is not what the term is to change (section 4.2, 4.4).
    return term(network) + (choice(network.scores).detach() * behind).sum(dim=1)


def utility_regression(network: Subnetwork, choice: Choice, critic: Callable[[Subnetwork], Tensor]) -> Tensor:
    """[B] the sum of ||s_j - u_j||^2 over the junctions met (Eq. 5 and 6, without k_ure); u_ij = -c_inf (Eq. 7, 8)."""

    def error(junction: Subnetwork) -> Tensor:
        assert junction.scores is not None
        utilities = -torch.stack([critic(sink) for sink in junction.sinks], dim=1).detach()
        return (junction.scores - utilities).square().sum(dim=1)

    return over_junctions(network, choice, error)


def decisiveness(network: Subnetwork, choice: Choice) -> Tensor:
    """[B] the sum of ||s_j||^2 over the junctions met (Eq. 10, without k_dec): it keeps an actor exploring."""

    def size(junction: Subnetwork) -> Tensor:
        assert junction.scores is not None
        return junction.scores.square().sum(dim=1)

    return over_junctions(network, choice, size)


def reach_of(trace: RouteTrace, choice: Choice) -> Tensor:
    """[B, parts] with which probability each image gets to each part of a network.

    Exits and forks divide a network into parts: first what lies before them all, then what lies behind the first of
    them, path by path, and so on. Without forks, parts are sections, and there are exits + 1. With forks, the trace is
    that of all images on every path (`Layout.every_path`).
    """
    layout = trace.layout
    lies = (layout.sections[column] for column in layout.of_units)
    forks = zip(lies, trace.at_units, strict=True) if layout.forks else ()
    turned = [(section, (choice(fork.logits) * fork.weights).sum(dim=1), 2) for section, fork in forks]
    passed = [(section, choice(stop.logits)[:, GO], 1) for section, stop in enumerate(trace.stops)]
    paths, on = 1, trace.logits.new_ones(len(trace.logits)).view(layout.paths, -1)
    found = [on[:1]]
    for _, onwards, ways in sorted(turned + passed, key=lambda met: met[0]):  # a section's forks, then its exit
        paths, on = paths * ways, on * onwards.view(layout.paths, -1)
        found.append(on[:: layout.paths // paths])
    return torch.cat(found).T


def shares(layout: Layout) -> Tensor:
    """[parts] the share of what all images teach that comes to each part: the paths of a tree divide it evenly."""
    paths, found = 1, [1.0]
    forks = [layout.sections[column] for column in layout.of_units] if layout.forks else []
    for ways in [way for section in range(len(layout.stops) + 1) for way in (*[2] * forks.count(section), 1)][:-1]:
        paths *= ways
        found += [1 / paths] * paths
    return torch.tensor(found)


def throughput_rate(reach: Tensor, floor: float = 1e-2) -> Tensor:
    """Throughput-adjusted learning rate of a layer that images [B] reach with probabilities `reach` (section 4.5).

    Eq. 16 has 1 / ||p||. The authors' code (multipath-nn, `net_types.py`) divides by the root mean square of p
    instead, which differs by the constant sqrt(B) and leaves a layer that all images reach as it is, and keeps
    probabilities over a floor. This does as the code does, with a floor on the root mean square.
    """
    return 1 / reach.square().mean().sqrt().clamp_min(floor)


def activated_l2(reach: Tensor, squares: Tensor, *, routes: bool = False) -> Tensor:
    """E[sum of w^2 over the layers activated] (Eq. 9, without k_L2).

    `reach` [B, S] is the probability with which each image activates each of S parts of the network; `squares` [S] are
    the parts' squared weights. The reach is a constant in the gradient, unless the policy is to be regularised as well
    (`routes`, section 5.2, which "discourages networks from routing data along deep paths"). Where it is 1: plain L2.
    """
    return ((reach if routes else reach.detach()) @ squares).mean()
