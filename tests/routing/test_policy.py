"""Section 4 of McGill and Perona against exhaustive enumeration of a small tree's routes."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from routekit.routing.policy import (
    Junction,
    Leaf,
    Subnetwork,
    activated_l2,
    critics,
    decisiveness,
    expected_cost,
    optimistic,
    pragmatic,
    sampled,
    softly,
    throughput_rate,
    utility_regression,
)

BATCH = 4


def draw(seed: int) -> "Iterator[Tensor]":
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(BATCH, dtype=torch.float64, generator=generator)


def tree(seed: int) -> Junction:
    """A junction of three sinks: a leaf; a junction of two leaves; a junction of a leaf and one more junction."""
    numbers = draw(seed)

    def leaf() -> Leaf:
        return Leaf(cost=next(numbers), error=3 * next(numbers))

    def junction(*sinks: Subnetwork) -> Junction:
        scores = torch.stack([4 * next(numbers) - 2 for _ in sinks], dim=1).requires_grad_()
        return Junction(cost=next(numbers), scores=scores, sinks=sinks)

    return junction(leaf(), junction(leaf(), leaf()), junction(leaf(), junction(leaf(), leaf())))


def junctions(network: Subnetwork) -> list[Junction]:
    """All junctions, the root first."""
    if isinstance(network, Leaf):
        return []
    return [network, *(found for sink in network.sinks for found in junctions(sink))]


def every_policy(network: Subnetwork) -> Iterator[dict[int, int]]:
    """Every assignment of a sink to each junction."""
    found = junctions(network)
    for picks in itertools.product(*(range(len(junction.sinks)) for junction in found)):
        yield {id(junction): pick for junction, pick in zip(found, picks, strict=True)}


def walk(network: Subnetwork, picks: dict[int, int], image: int) -> tuple[float, list[Junction]]:
    """What one image costs under fixed decisions, and the junctions that it meets."""
    cost, met = float(network.cost[image]), []
    while isinstance(network, Junction):
        met.append(network)
        network = network.sinks[picks[id(network)]]
        cost += float(network.cost[image])
    return cost + float(network.error[image]), met


def chance(network: Subnetwork, picks: dict[int, int], image: int, temperature: float) -> float:
    """The probability that softmax routing decides so everywhere, junctions that are not met included."""
    result = 1.0
    for junction in junctions(network):
        result *= float(torch.softmax(junction.scores[image].detach() / temperature, dim=0)[picks[id(junction)]])
    return result


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), temperature=st.floats(0.2, 3.0))
def test_the_actors_expectation_is_the_mean_over_all_routes(seed: int, temperature: float) -> None:
    network = tree(seed)
    got = expected_cost(network, softly(temperature))
    for image in range(BATCH):
        want = sum(
            chance(network, picks, image, temperature) * walk(network, picks, image)[0]
            for picks in every_policy(network)
        )
        assert float(got[image].detach()) == pytest.approx(want, rel=1e-9)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_best_decisions_are_the_least_of_all_routes(seed: int) -> None:
    network = tree(seed)
    for image in range(BATCH):
        want = min(walk(network, picks, image)[0] for picks in every_policy(network))
        assert float(optimistic(network)[image]) == pytest.approx(want)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), critic=st.sampled_from(sorted(critics)), temperature=st.floats(0.2, 3.0))
def test_utilities_and_their_regression_by_enumeration(seed: int, critic: str, temperature: float) -> None:
    network = tree(seed)
    got = utility_regression(network, softly(temperature), critics[critic])
    size = decisiveness(network, softly(temperature))
    for image in range(BATCH):
        inference = {id(junction): int(junction.scores[image].argmax()) for junction in junctions(network)}

        def utility(sink: Subnetwork, image: int = image, inference: dict[int, int] = inference) -> float:
            if critic == "pragmatic":
                return -walk(sink, inference, image)[0]
            return -min(walk(sink, picks, image)[0] for picks in every_policy(sink))

        want, want_size = 0.0, 0.0
        for picks in every_policy(network):
            _, met = walk(network, picks, image)
            p = chance(network, picks, image, temperature)
            for junction in met:
                pairs = zip(junction.scores[image].tolist(), junction.sinks, strict=True)
                want += p * sum((score - utility(sink)) ** 2 for score, sink in pairs)
                want_size += p * float(junction.scores[image].detach().square().sum())
        assert float(got[image].detach()) == pytest.approx(want, rel=1e-9)
        assert float(size[image].detach()) == pytest.approx(want_size, rel=1e-9)


def test_an_optimists_utility_does_not_hang_on_what_routers_downstream_decide() -> None:
    network = tree(0)
    first = [optimistic(sink) for sink in network.sinks]
    pragmatists = [pragmatic(sink) for sink in network.sinks]
    for junction in junctions(network)[1:]:
        junction.scores.data.neg_()
    assert all(torch.equal(a, optimistic(sink)) for a, sink in zip(first, network.sinks, strict=True))
    assert not all(torch.equal(a, pragmatic(sink)) for a, sink in zip(pragmatists, network.sinks, strict=True))


def test_gradients_in_float64() -> None:
    network = tree(1)
    scores = [junction.scores for junction in junctions(network)]

    def with_scores(network: Subnetwork, given: Iterator[Tensor]) -> Subnetwork:
        if isinstance(network, Leaf):
            return network
        own = next(given)
        return Junction(network.cost, own, tuple(with_scores(sink, given) for sink in network.sinks))

    def actor(*given: Tensor) -> Tensor:
        return expected_cost(with_scores(network, iter(given)), softly(0.7, epsilon=0.1))

    assert torch.autograd.gradcheck(actor, scores)


def test_a_critics_decisions_are_constant_in_its_gradient() -> None:
    network = tree(2)
    root, *others = [junction.scores for junction in junctions(network)]
    utility_regression(network, softly(1.0), pragmatic).sum().backward()
    utilities = -torch.stack([pragmatic(sink) for sink in network.sinks], dim=1).detach()
    # The root is met by every image: plain least squares, though its score decides who meets the others.
    torch.testing.assert_close(root.grad, 2 * (root - utilities).detach())
    assert all(scores.grad.abs().sum() > 0 for scores in others)


def test_draws_follow_the_policy_and_exploration_the_uniform() -> None:
    scores = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64).repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    explored = softly(0.5, epsilon=0.3)(scores)
    torch.testing.assert_close(explored[0], 0.7 * torch.softmax(scores[0] / 0.5, dim=0) + 0.1)
    drawn = sampled(softly(0.5, epsilon=0.3), generator)(scores)
    assert torch.equal(drawn.sum(dim=1), torch.ones(20_000, dtype=torch.float64))
    torch.testing.assert_close(drawn.mean(dim=0), explored[0], atol=0.01, rtol=0)


def test_the_mean_over_draws_is_the_expectation() -> None:
    network = tree(3)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([expected_cost(network, sampled(softly(1.0), generator)) for _ in range(4000)])
    torch.testing.assert_close(draws.mean(dim=0), expected_cost(network, softly(1.0)), atol=0.1, rtol=0)


def test_throughput_rates_equal_the_variances_of_updates() -> None:
    # 64 images that reach a layer with probability 1/4: the update's variance is B p^2 v, so the rate is 1 / p.
    assert float(throughput_rate(torch.full((64,), 0.25))) == pytest.approx(4.0)
    assert float(throughput_rate(torch.ones(64))) == 1.0
    assert float(throughput_rate(torch.zeros(64))) == pytest.approx(100.0)
    # Against Eq. 16: the same, but for sqrt(B).
    reach = torch.rand(64, generator=torch.Generator().manual_seed(0))
    assert float(throughput_rate(reach)) == pytest.approx(8 / float(reach.norm()))


def test_l2_by_activation_by_hand() -> None:
    # Two images; the second part is reached by one of them with probability 1/2: (4 + 4 + 0.5 * 9) / 2.
    reach = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    assert float(activated_l2(reach, torch.tensor([4.0, 9.0]))) == pytest.approx(6.25)
