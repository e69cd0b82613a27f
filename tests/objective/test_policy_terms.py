"""The terms of a policy against the sum over everything that an image can do, written out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.objective.policy import PolicyConfig, exit_tree, policy_terms, weighed
from routekit.routing.decision import GO, Decision, Layout, RouteTrace
from routekit.routing.policy import Choice, Junction, Leaf, reach_of, shares, softly

BATCH, CLASSES = 5, 4
EXITS = Layout(sections=(0, 1), stops=(0, 1), widths=(1, 1))
# A fork, then on each path an exit.
FORKED = Layout(sections=(0, 0), stops=(1,), widths=(1, 1), forks=True)
SOFT = softly(0.7, epsilon=0.1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decision(logits: Tensor, choice: Tensor | None = None) -> Decision:
    taken = logits.argmax(dim=1) if choice is None else choice
    return Decision(logits, torch.nn.functional.one_hot(taken, 2).to(logits), taken)


def costs_of(layout: Layout, base: list[float]) -> CostTable:
    extra = torch.zeros(len(layout.sections), dtype=torch.float64)
    return CostTable((), 10.0, extra, torch.tensor(base, dtype=torch.float64), layout)


def with_exits() -> tuple[RouteTrace, CostTable, list[Tensor]]:
    decisions = tuple(decision(drawn(BATCH, 2, seed=seed).requires_grad_()) for seed in (1, 2))
    leaves = tuple(drawn(BATCH, CLASSES, seed=seed) for seed in (3, 4, 5))
    trace = RouteTrace(leaves[-1], decisions, EXITS, leaves)
    return trace, costs_of(EXITS, [1.0, 2.0, 4.0]), [drawn(BATCH, seed=seed).abs() for seed in (6, 7, 8)]


def chances(trace: RouteTrace, choice: Choice = SOFT) -> list[Tensor]:
    """The chance of each image to stop at the first exit, at the second, and at the end."""
    first, second = (choice(stop.logits)[:, GO] for stop in trace.stops)
    return [1 - first, first * (1 - second), first * second]


@pytest.mark.parametrize("k_cpt", [0.3, torch.linspace(0.1, 0.9, BATCH, dtype=torch.float64)])
def test_an_actor_minimises_the_mean_over_all_that_an_image_can_do(k_cpt: float | Tensor) -> None:
    trace, costs, errors = with_exits()
    found = policy_terms(trace, costs, errors, PolicyConfig("actor", decisiveness=0.2), k_cpt=k_cpt, choice=SOFT)
    spent = [1.0, 3.0, 7.0]  # with all sections before
    want = sum(p * (k_cpt * cost + error) for p, cost, error in zip(chances(trace), spent, errors, strict=True))
    torch.testing.assert_close(found["inference"], want.mean())
    reach = [torch.ones(BATCH, dtype=torch.float64), SOFT(trace.stops[0].logits)[:, GO]]
    scores = sum(
        there.detach() * stop.logits.square().sum(dim=1) for there, stop in zip(reach, trace.stops, strict=True)
    )
    torch.testing.assert_close(found["decisiveness"], 0.2 * scores.mean())
    assert {*found} == {"inference", "decisiveness"}
    alone = policy_terms(trace, costs, errors, PolicyConfig("actor", decisiveness=0), k_cpt=k_cpt, choice=SOFT)
    assert {*alone} == {"inference"}


@pytest.mark.parametrize("kind", ["pragmatic", "optimistic"])
def test_a_critic_regresses_on_what_it_believes_of_the_future(kind: str) -> None:
    trace, costs, errors = with_exits()
    config = PolicyConfig(kind, utility=0.5)
    found = policy_terms(trace, costs, errors, config, k_cpt=0.3, choice=SOFT)
    price = [0.3 * cost for cost in (1.0, 2.0, 4.0)]
    stop, go = errors[1], price[2] + errors[2]
    second = torch.where(trace.stops[1].logits[:, 0] >= trace.stops[1].logits[:, 1], go, stop)
    if kind == "optimistic":
        second = torch.minimum(go, stop)
    believed = [(price[1] + second, errors[0]), (go, errors[1])]
    distance = [
        sum((each.logits[:, sink] + worth[sink]).square() for sink in (0, 1))
        for each, worth in zip(trace.stops, believed, strict=True)
    ]
    reached = SOFT(trace.stops[0].logits)[:, GO].detach()
    torch.testing.assert_close(found["utility"], 0.5 * (distance[0] + reached * distance[1]).mean())
    spent = [1.0, 3.0, 7.0]
    want = sum(p * (0.3 * cost + error) for p, cost, error in zip(chances(trace), spent, errors, strict=True))
    torch.testing.assert_close(found["inference"], want.mean())
    assert {*found} == {"inference", "utility"}
    # Decisions learn by the regression alone: what an image is expected to cost is a constant in the choice.
    assert not found["inference"].requires_grad
    assert found["utility"].requires_grad


def test_l2_is_of_the_layers_that_are_reached() -> None:
    trace, costs, errors = with_exits()
    squares = torch.arange(1.0, 7.0, dtype=torch.float64)
    kwargs = {"k_cpt": 0.3, "choice": SOFT, "squares": squares}
    first, second, last = chances(trace)
    # Three sections; then the classifiers of two exits, and the last one.
    want = squares[0] + squares[1] * (1 - first) + squares[2] * last + squares[3] * first + squares[4] * second
    want = (want + squares[5] * last).mean()
    for routes in (False, True):
        config = PolicyConfig("actor", l2=0.4, l2_routes=routes)
        found = policy_terms(trace, costs, errors, config, **kwargs)["l2"]  # type: ignore[arg-type]
        torch.testing.assert_close(found, 0.4 * want)
        assert found.requires_grad == routes
    none = policy_terms(trace, costs, errors, PolicyConfig("actor"), **kwargs)  # type: ignore[arg-type]
    assert "l2" not in none
    nothing = policy_terms(trace, costs, errors, PolicyConfig("actor", l2=0.4), k_cpt=0.3, choice=SOFT)
    assert "l2" not in nothing


def test_the_policy_of_a_config() -> None:
    scores = drawn(2000, 2).float()
    torch.testing.assert_close(PolicyConfig(epsilon=0.2).choice(0.5)(scores), softly(0.5, epsilon=0.2)(scores))
    draw = PolicyConfig(epsilon=0.2, draw=True).choice(0.5, torch.Generator().manual_seed(3))(scores)
    again = PolicyConfig(epsilon=0.2, draw=True).choice(0.5, torch.Generator().manual_seed(3))(scores)
    assert torch.equal(draw, again)
    assert {*draw.flatten().tolist()} == {0.0, 1.0}
    want = softly(0.5, epsilon=0.2)(scores).mean(dim=0)
    torch.testing.assert_close(draw.mean(dim=0), want, rtol=0, atol=0.03)


def forked() -> tuple[RouteTrace, CostTable, list[Tensor]]:
    """All images on the first path, then all on the second."""
    scores = drawn(BATCH, 2, seed=1).repeat(2, 1)
    taken = torch.tensor([0, 1]).repeat_interleave(BATCH)
    decisions = (decision(scores, taken), decision(drawn(2 * BATCH, 2, seed=2)))
    leaves = tuple(drawn(2 * BATCH, CLASSES, seed=seed) for seed in (3, 4))
    trace = RouteTrace(leaves[-1], decisions, FORKED, leaves)
    return trace, costs_of(FORKED, [1.0, 2.0]), [drawn(2 * BATCH, seed=seed).abs() for seed in (5, 6)]


def test_at_a_fork_both_paths_count_by_their_chance() -> None:
    trace, costs, errors = forked()
    found = policy_terms(trace, costs, errors, PolicyConfig("actor"), k_cpt=0.3, choice=SOFT)["inference"]
    fork, stop = SOFT(trace.decisions[0].logits), SOFT(trace.decisions[1].logits)
    want = torch.zeros(BATCH, dtype=torch.float64)
    for path in (0, 1):
        rows = slice(path * BATCH, (path + 1) * BATCH)
        go, (first, last) = stop[rows, GO], (error[rows] for error in errors)
        behind = (1 - go) * (0.3 * 1.0 + first) + go * (0.3 * 3.0 + last)
        want += fork[:BATCH, path] * behind
    torch.testing.assert_close(found, want.mean())
    tree = exit_tree(trace, costs, errors, 0.3)
    assert float(tree.cost.abs().sum()) == 0.0  # a fork itself costs nothing


def test_behind_two_forks_each_path_has_its_leaf() -> None:
    layout = Layout(sections=(0, 0), stops=(), widths=(1, 1), forks=True)
    decisions = tuple(decision(drawn(4 * BATCH, 2, seed=seed)) for seed in (1, 2))
    leaf = drawn(4 * BATCH, CLASSES, seed=3)
    errors = [torch.arange(4.0).repeat_interleave(BATCH)]  # the number of the path
    tree = exit_tree(RouteTrace(leaf, decisions, layout, (leaf,)), costs_of(layout, [1.0]), errors, 0.3)

    def leaves(node: Junction | Leaf) -> list[float]:
        return [float(node.error[0])] if isinstance(node, Leaf) else [e for sink in node.sinks for e in leaves(sink)]

    assert leaves(tree) == [0.0, 1.0, 2.0, 3.0]


def test_which_layers_images_reach_behind_a_fork() -> None:
    trace, _, _ = forked()
    fork, stop = SOFT(trace.decisions[0].logits)[:BATCH], SOFT(trace.decisions[1].logits)
    first, second = fork[:, 0], fork[:, 1]
    on_first, on_second = stop[:BATCH, GO], stop[BATCH:, GO]
    want = [
        torch.ones(BATCH, dtype=torch.float64), first, second, first * on_first, second * on_second,
        first * (1 - on_first), second * (1 - on_second), first * on_first, second * on_second,
    ]  # fmt: skip
    torch.testing.assert_close(reach_of(trace, SOFT), torch.stack(want, dim=1))
    assert shares(FORKED).tolist() == [1.0] + [0.5] * 8
    assert shares(EXITS).tolist() == [1.0] * 6


def test_decisions_learn_by_one_error_and_classifiers_by_another() -> None:
    trace, _, _ = with_exits()
    trace = replace(trace, leaves=tuple(leaf.requires_grad_() for leaf in trace.leaves))
    labels = torch.tensor([0, 1, 2, 3, 0])
    for error in ("wrong", "loss"):
        minimised = [leaf.square().sum(dim=1) for leaf in trace.leaves]
        found = weighed(trace, labels, minimised, PolicyConfig(error=error))  # type: ignore[arg-type]
        for value, leaf in zip(found, trace.leaves, strict=True):
            loss = torch.nn.functional.cross_entropy(leaf, labels, reduction="none")
            want = (leaf.argmax(dim=1) != labels).double() if error == "wrong" else loss
            torch.testing.assert_close(value, want)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
            torch.testing.assert_close(slope, 2 * leaf)
