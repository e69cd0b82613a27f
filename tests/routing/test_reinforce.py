"""Policy gradients, against enumeration: the mean over all routes is the gradient of the expected reward."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import sparse
from routekit.objective.objective import ObjectiveWeights
from routekit.objective.reward import Drawn, RewardConfig, reward_term
from routekit.routing.decision import Decision, Layout, RouteTrace
from routekit.routing.gate import hard
from routekit.routing.policy import softly
from routekit.routing.reinforce import Drawing, drop_rewards, hybrid_rewards, leave_one_out, policy_gradient
from routekit.routing.router import RouterConfig
from routekit.training.drawing import drawing_of
from routekit.training.schedule import Schedule
from tests.toy import toy_noise, toy_view
from tests.training.runs import BENEFIT, TrainingConfig, trainer

UNITS = 3


def traced(scores: torch.Tensor, route: tuple[int, ...]) -> RouteTrace:
    """Scores `[units, 2]`, and the sinks that one image took."""
    taken = torch.eye(2, dtype=scores.dtype)[list(route)]
    decisions = tuple(
        Decision(score.unsqueeze(0), sink.unsqueeze(0), sink.argmax().unsqueeze(0))
        for score, sink in zip(scores, taken, strict=True)
    )
    return RouteTrace(torch.zeros(1, 2), decisions, Layout((0,) * UNITS, widths=(1,) * UNITS))


@pytest.mark.parametrize("explore", [0.0, 0.4])
@pytest.mark.parametrize("locked", [0, 1])
def test_the_mean_over_all_routes_is_the_gradient_of_the_expected_reward(explore: float, locked: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(UNITS, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    rewards = torch.randn(2**UNITS, dtype=torch.float64, generator=generator)
    choice = softly(0.7, epsilon=explore)
    expected, mean = torch.zeros((), dtype=torch.float64), torch.zeros(UNITS, 2, dtype=torch.float64)
    for route, reward in zip(itertools.product((0, 1), repeat=UNITS), rewards, strict=True):
        if any(sink != 0 for sink in route[:locked]):
            continue
        chances = choice(scores)[range(UNITS), list(route)][locked:]
        expected = expected + chances.prod() * reward
        advantages = (reward - 0.3).view(1, 1)  # the baseline does not change the mean
        (slope,) = torch.autograd.grad(policy_gradient(traced(scores, route), choice, advantages, locked).sum(), scores)
        mean += chances.prod().detach() * slope
    (want,) = torch.autograd.grad(-expected, scores)
    torch.testing.assert_close(mean, want)


def test_rewards_by_hand() -> None:
    # SkipNet: a loss of 2, units that cost 0.1, 0 and 0.3, weight 10: from each unit on 4, 3 and 3.
    rewards = hybrid_rewards(torch.tensor([2.0]), torch.tensor([[0.1, 0.0, 0.3]]), 10.0)
    torch.testing.assert_close(rewards, torch.tensor([[-6.0, -5.0, -5.0]]))
    # BlockDrop: half of the units ran. 1 - w / 4 if right, -gamma if not.
    ran = torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2)
    found = drop_rewards(torch.tensor([True, False]), ran, 2.0, 5.0)
    assert found.tolist() == [0.5, -5.0]
    # Each image but for the mean of the others.
    torch.testing.assert_close(
        leave_one_out(torch.tensor([[1.0], [2.0], [6.0]])), torch.tensor([[-3.0], [-1.5], [4.5]])
    )
    assert leave_one_out(torch.tensor([[3.0]])).tolist() == [[3.0]]
    assert leave_one_out(torch.tensor([[3.0, 1.0], [1.0, 1.0]])).tolist() == [[2.0, 0.0], [-2.0, 0.0]]


def test_decisions_are_drawn_by_the_policy_but_for_the_first_ones() -> None:
    scores = torch.tensor([[0.0, 2.0]]).expand(4000, 2)
    gate = Drawing(softly(1.0, epsilon=0.4), locked=1)
    generator = torch.Generator().manual_seed(0)
    first, second = (gate(scores, temperature=9.0, generator=generator, bias=None) for _ in range(2))
    assert bool((first[:, 0] == 1).all())
    want = 0.6 / (1 + math.exp(2)) + 0.2
    assert float(second[:, 0].mean()) == pytest.approx(want, abs=0.03)


def test_self_criticism_is_against_the_likeliest_route() -> None:
    torch.manual_seed(0)
    network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5)).eval()
    costs, x = CostTable.measure(network), toy_noise(6)
    config = RewardConfig("blockdrop", wrong=2.0)
    likeliest = network(x, gate=Drawing(hard), execution=sparse)
    assert bool(likeliest.routes.all())
    labels = likeliest.logits.argmax(dim=1)
    drawn = Drawn(config.choice(1.0), likeliest=likeliest)

    def term(trace: RouteTrace, labels: torch.Tensor, drawn: Drawn = drawn) -> torch.Tensor:
        return reward_term(trace, labels, torch.zeros(6), costs, config, drawn, weight=0.5)

    # The likeliest route has no advantage over itself; a shorter one has, if it answers rightly.
    assert float(term(likeliest, labels).detach()) == 0
    units = len(network.junctions)
    short = torch.ones(6, units, dtype=torch.bool)
    short[:, -1] = False
    shorter = network(x, routes=short)
    log_chance = sum(unit.logits.log_softmax(dim=1)[:, int(k == units - 1)] for k, unit in enumerate(shorter.at_units))
    right = shorter.logits.argmax(dim=1)
    # The likeliest route is right, and runs everything: its reward is 1 - 0.5.
    gain = torch.where(right == labels, 1 - 0.5 * ((units - 1) / units) ** 2, torch.tensor(-2.0)) - 0.5
    torch.testing.assert_close(term(shorter, labels), -(gain * log_chance).mean())
    # What did not decide does not learn.
    first = shorter.at_units[0].logits.log_softmax(dim=1)[:, 0]
    later = replace(drawn, locked=1)
    torch.testing.assert_close(term(shorter, labels, later), -(gain * (log_chance - first)).mean())


@pytest.mark.parametrize("step", [1, 15])
def test_the_likeliest_route_is_that_of_the_chances_by_which_the_other_is_drawn(step: int) -> None:
    torch.manual_seed(0)
    network = convert(toy_view(), [Skip()], routers=RouterConfig(kind="policy", open_logit=0.0, detach=False)).train()
    for head in network.banks[0].heads:
        torch.nn.init.normal_(head.weight)
    config = TrainingConfig(epochs=2, hard=0.0)
    x = toy_noise(16)
    rewards = RewardConfig("blockdrop", explore=0.4, share=1.0, curriculum=0.5)
    drawn = drawing_of(network, rewards, Schedule(config, 10, learns=True), step, x)
    assert drawn is not None
    assert drawn.likeliest is not None
    assert drawn.locked == (3 if step == 1 else 0)
    assert network.banks[0].training
    assert network.backbone.training == (step == 15)
    gate, generator = Drawing(drawn.choice, drawn.locked), torch.Generator().manual_seed(0)
    trace = network(x, gate=gate, execution=sparse, generator=generator)
    for unit, (own, other) in enumerate(zip(trace.at_units, drawn.likeliest.at_units, strict=True)):
        torch.testing.assert_close(own.logits, other.logits)
        likeliest = other.weights[:, 0] > 0.5
        assert torch.equal(likeliest, (own.logits[:, 0] >= own.logits[:, 1]) | (unit < drawn.locked))
        assert not torch.equal(likeliest, own.weights[:, 0] > 0.5) or unit < drawn.locked


def test_a_decision_of_skipnet_is_rewarded_for_the_loss_and_for_the_cost_from_its_unit_on() -> None:
    torch.manual_seed(0)
    network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5)).eval()
    costs, config = CostTable.measure(network), RewardConfig("skipnet")
    routes = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    trace = network(toy_noise(3), routes=routes)
    losses = torch.tensor([0.2, 1.0, 3.0])
    found = reward_term(trace, torch.zeros(3), losses, costs, config, Drawn(config.choice(1.0)), weight=2.0)
    ahead = [[sum((row * costs.extra)[k:].tolist()) / costs.dense for k in range(4)] for row in routes.double()]
    rewards = -(losses.unsqueeze(1) + 2.0 * torch.tensor(ahead))
    others = torch.stack([(rewards.sum(dim=0) - rewards[image]) / 2 for image in range(3)])
    chances = torch.stack(
        [
            unit.logits.log_softmax(dim=1).gather(1, (~routes[:, [k]]).long())[:, 0]
            for k, unit in enumerate(trace.at_units)
        ],
        dim=1,
    )
    torch.testing.assert_close(found, -((rewards - others) * chances).sum(dim=1).mean())


def test_draws_are_the_generators_alone() -> None:
    scores, gate = torch.zeros(200, 2), Drawing(softly(1.0))
    torch.manual_seed(1)
    one = gate(scores, temperature=1.0, generator=torch.Generator().manual_seed(5), bias=None)
    torch.manual_seed(2)
    assert torch.equal(
        one, Drawing(softly(1.0))(scores, temperature=1.0, generator=torch.Generator().manual_seed(5), bias=None)
    )


@pytest.mark.parametrize("kind", ["skipnet", "blockdrop"])
def test_a_network_learns_by_rewards_to_meet_its_budget(kind: str) -> None:
    torch.manual_seed(0)
    routers = RouterConfig(kind="policy" if kind == "blockdrop" else "rnn", hidden=8, open_logit=0.5, detach=False)
    network = convert(toy_view(), [Skip()], routers=routers)
    curriculum = 0.5 if kind == "blockdrop" else 0.0
    reward = RewardConfig(kind, share=1.0 if curriculum else 0.5, curriculum=curriculum, explore=0.2)
    config = TrainingConfig(
        **{**vars(BENEFIT), "gate": "softmax", "epochs": 8, "anneal": 0.2, "router_learning_rate": 1.0}
    )
    weights, seen = ObjectiveWeights(distillation=0.5, reward=reward), []
    costs = CostTable.measure(network)  # of which the policy network's is a large part in so small a network
    target = 0.5 * (costs.minimum + costs.maximum)
    run = trainer(network=network, weights=weights, config=config, target=target)
    first = network.backbone.body[0].conv.weight
    before, run.on_step = first.detach().clone(), lambda step: seen.append((step, torch.equal(first, before)))
    run.fit()
    rewarded = [(step, same) for step, same in seen if "reward" in step.losses]
    routing = [step for step, _ in seen if step.phase == "route"]
    assert len(rewarded) == pytest.approx(reward.share * len(routing), abs=1)
    # Until decisions are drawn, the cost does not count, and the dense cost is wanted.
    assert [step for step, _ in seen if "cost" in step.losses] == [step for step, _ in rewarded]
    assert all(step.wanted == 1 for step in routing[: -len(rewarded)])
    assert routing[-1].wanted == pytest.approx(target / costs.dense)
    assert any(step.losses["reward"] != 0 for step, _ in rewarded)
    # As long as not all units decide, the policy learns alone.
    assert any(same for _, same in rewarded) == (curriculum > 0)
    assert not rewarded[-1][1]
    assert run.realized * costs.dense == pytest.approx(target, rel=0.03)


def test_a_policy_network_is_paid_for_and_changes_nothing_at_first() -> None:
    view = toy_view()
    x = toy_noise(5)
    want = view.model.eval()(x)
    network = convert(view, [Skip()], routers=RouterConfig(kind="policy", open_logit=1.0)).eval()
    assert torch.equal(network(x).logits, want)
    costs = CostTable.measure(network)
    (policy,) = [part for part in costs.parts if part.name == "policy"]
    without = CostTable.measure(convert(toy_view(), [Skip()], routers=RouterConfig(hidden=1)))
    # By hand, at 8x8 pixels: the stem, the blocks with their shortcuts, the heads. Batch norms and means count little.
    convolutions = 3 * 16 * 9 * 64 + 2 * 16 * 16 * 9 * 64 + 48 * 32 * 9 * 16 + 512 * 16 + 96 * 64 * 9 * 4 + 2048 * 4
    assert policy.cost == pytest.approx(convolutions + len(network.junctions) * 64 * 2, rel=0.02)
    assert costs.maximum > without.maximum
