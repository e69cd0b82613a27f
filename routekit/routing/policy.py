"""Policies over a tree of junctions: the expected cost of inference, and the utility of each sink.

After McGill and Perona, "Deciding How to Decide: Dynamic Routing in Artificial Neural Networks" (2017), section 4.
Equation numbers are theirs. All quantities are per image, `[B]`, and differentiable if their inputs are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.registry import Registry
from routekit.routing.decision import GO, Layout, RouteTrace
from routekit.routing.gate import hard, one_hot

# Scores s_j [B, K] of a junction's sinks -> the probability [B, K] of each sink.
Choice = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Leaf:
    """A subnetwork that answers without a decision.

    Attributes:
        cost: `[B]`, c_cpt from the junction before it to the answer: k_cpt times its multiply-adds (Eq. 2).
        error: `[B]`, c_err of the answer.
    """

    cost: Tensor
    error: Tensor


@dataclass(frozen=True)
class Junction:
    """A subnetwork that begins with a decision.

    Attributes:
        cost: `[B]`, c_cpt from the junction before it to this one.
        scores: `[B, K]`, s_j, the router's scores of the sinks.
        sinks: nu_j^i, the subnetworks behind the junction.
    """

    cost: Tensor
    scores: Tensor
    sinks: tuple["Subnetwork", ...]


Subnetwork = Leaf | Junction


def softly(temperature: float, *, epsilon: float = 0.0) -> Choice:
    """Build the training routing policy: the softmax of s_j / tau (Eq. 4).

    Args:
        temperature: tau.
        epsilon: The share of the uniform distribution that is mixed in.

    Returns:
        The policy.
    """

    def choose(scores: Tensor) -> Tensor:
        return (1 - epsilon) * torch.softmax(scores / temperature, dim=1) + epsilon / scores.shape[1]

    return choose


def sampled(choice: Choice, generator: torch.Generator | None = None) -> Choice:
    """Build the policy that draws one sink from `choice`: d-hat of section 4, a constant in the gradient.

    Args:
        choice: The policy that gives the probabilities.
        generator: Of the draws; None for the global one.

    Returns:
        The policy. Its probabilities are 0 and 1.
    """

    def choose(scores: Tensor) -> Tensor:
        drawn = torch.multinomial(choice(scores).detach().cpu(), 1, generator=generator).squeeze(1)
        return one_hot(drawn.to(scores.device), scores)

    return choose


def expected_cost(network: Subnetwork, choice: Choice) -> Tensor:
    """Compute E[c_inf] (Eq. 1 and 3) exactly: each sink counts by its probability.

    Args:
        network: The tree.
        choice: The routing policy.

    Returns:
        `[B]`.
    """
    if isinstance(network, Leaf):
        return network.cost + network.error
    behind = torch.stack([expected_cost(sink, choice) for sink in network.sinks], dim=1)
    return network.cost + (choice(network.scores) * behind).sum(dim=1)


# Subnetwork -> [B], its c_inf as a critic predicts it: the utility of the sink is u_ij = -c_inf.
critics: Registry[Callable[[Subnetwork], Tensor]] = Registry("critic")


@critics.register("pragmatic")
def pragmatic(network: Subnetwork) -> Tensor:
    """`[B]`, c_inf if the inference routing policy (section 3) decides downstream (Eq. 7)."""
    return expected_cost(network, hard)


@critics.register("optimistic")
def optimistic(network: Subnetwork) -> Tensor:
    """`[B]`, the least c_inf over all decisions d' downstream (Eq. 8)."""
    if isinstance(network, Leaf):
        return network.cost + network.error
    return network.cost + torch.stack([optimistic(sink) for sink in network.sinks], dim=1).amin(dim=1)


def over_junctions(network: Subnetwork, choice: Choice, term: Callable[[Junction], Tensor]) -> Tensor:
    """Compute the expected sum of a term over J, the junctions that an image meets.

    Args:
        network: The tree.
        choice: The routing policy.
        term: The term `[B]` of a junction.

    Returns:
        `[B]`.
    """
    if isinstance(network, Leaf):
        return torch.zeros_like(network.cost)
    behind = torch.stack([over_junctions(sink, choice, term) for sink in network.sinks], dim=1)
    # The term must not change which junctions are met: there, d-hat is a constant (sections 4.2 and 4.4).
    return term(network) + (choice(network.scores).detach() * behind).sum(dim=1)


def utility_regression(network: Subnetwork, choice: Choice, critic: Callable[[Subnetwork], Tensor]) -> Tensor:
    """Compute the expected sum of ||s_j - u_j||^2 over the junctions met (Eq. 5 and 6, without k_ure).

    Args:
        network: The tree.
        choice: The routing policy.
        critic: Gives u_ij = -c_inf (Eq. 7 or 8).

    Returns:
        `[B]`.
    """

    def error(junction: Junction) -> Tensor:
        utilities = -torch.stack([critic(sink) for sink in junction.sinks], dim=1).detach()
        return (junction.scores - utilities).square().sum(dim=1)

    return over_junctions(network, choice, error)


def decisiveness(network: Subnetwork, choice: Choice) -> Tensor:
    """Compute the expected sum of ||s_j||^2 over the junctions met (Eq. 10, without k_dec).

    It keeps an actor's scores small, so that the actor explores.

    Args:
        network: The tree.
        choice: The routing policy.

    Returns:
        `[B]`.
    """
    return over_junctions(network, choice, lambda junction: junction.scores.square().sum(dim=1))


def reach_of(trace: RouteTrace, choice: Choice) -> Tensor:
    """Compute the probability with which each image reaches each layer of a network.

    Exits and forks divide a network into parts: first what lies before them all, then what lies behind the first of
    them, path by path, and so on. Without forks, parts are sections. Behind the parts come the classifiers, path by
    path: those of the exits, which images reach that stop there, and the last ones.

    Args:
        trace: With forks, that of all images on every path (`Layout.every_path`).
        choice: The routing policy.

    Returns:
        `[B, layers]`.
    """
    layout = trace.layout
    forks = trace.at_units if layout.forks else ()
    turns = iter([(choice(fork.logits) * fork.weights).sum(dim=1) for fork in forks])
    passes = iter([choice(stop.logits)[:, GO] for stop in trace.stops])
    paths, on = 1, trace.logits.new_ones(len(trace.logits)).view(layout.paths, -1)
    parts, answers = [on[:1]], []

    def on_each(path: Tensor) -> Tensor:
        """Values `[all paths, B]` -> one row for each path that there is here."""
        return path[:: layout.paths // paths]

    for is_fork in layout.partings:
        before = on
        paths, onwards = (2 * paths, next(turns)) if is_fork else (paths, next(passes))
        on = on * onwards.view(layout.paths, -1)
        parts.append(on_each(on))
        if not is_fork:
            answers.append(on_each(before - on))
    return torch.cat([*parts, *answers, on_each(on)]).T


def shares(layout: Layout) -> Tensor:
    """`[layers]`, the share of all images on every path that each layer gets: paths divide them evenly."""
    paths, parts, answers = 1, [1.0], []
    for is_fork in layout.partings:
        paths *= 2 if is_fork else 1
        parts += [1 / paths] * paths
        if not is_fork:
            answers += [1 / paths] * paths
    return torch.tensor([*parts, *answers, *[1 / paths] * paths])


def throughput_rate(reach: Tensor, floor: float = 1e-2) -> Tensor:
    """Compute alpha, the throughput-adjusted learning rate of a layer (section 4.5).

    Eq. 16 is alpha = 1 / ||p||. The authors' code (multipath-nn, `net_types.py`) divides by the root mean square of p
    instead. That differs by the constant sqrt(B), and is 1 for a layer that all images reach. This does as the code
    does. The code has a floor for probabilities; here, the floor is for their root mean square.

    Args:
        reach: p, `[B]`, the probability with which each image reaches the layer.
        floor: The least root mean square.

    Returns:
        alpha, a scalar.
    """
    return 1 / reach.square().mean().sqrt().clamp_min(floor)


def activated_l2(reach: Tensor, squares: Tensor, *, routes: bool = False) -> Tensor:
    """Compute the expected sum of w^2 over the weights of the activated layers (Eq. 9, without k_L2).

    Args:
        reach: `[B, layers]`, the probability with which each image activates each layer (`reach_of`).
        squares: `[layers]`, the sum of the squared weights of each layer.
        routes: Let the term teach the policy, too. Section 5.2 says that this "discourages networks from routing data
            along deep paths". Else, the reach is a constant in the gradient.

    Returns:
        A scalar: plain L2 if the reach is 1.
    """
    return ((reach if routes else reach.detach()) @ squares).mean()
