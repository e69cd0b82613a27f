import itertools
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone, Sink
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.exits import measure_exits
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.execution import masked, relaxed, sparse
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify
from routekit.objective.objective import ObjectiveWeights, objective
from routekit.objective.policy import PolicyConfig
from routekit.routing.decision import Layout
from routekit.routing.gate import gates
from routekit.routing.router import banks
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import ToyNet, open_to_images, toy_exits, toy_images, toy_view
from tests.toy import toy_noise as images


@cache
def original(name: str) -> tuple[Backbone, Exit, Tensor, Tensor]:
    """A network with its exits, images, and what it answers."""
    view = build(spec_of(name, num_classes=10, input_size=None if name == "resnet20" else (3, 64, 64)))
    x = torch.randn(3, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return view, Exit().sized(0.5, view), x, view.model.eval()(x)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("rule", ["learned", "confidence", "entropy"])
@pytest.mark.parametrize("name", ["resnet20", "torchvision:resnet18", "timm:resnet50", "timm:resnet26d"])
def test_a_converted_network_is_the_original_until_it_is_trained(name: str, rule: str, skips: bool) -> None:
    view, config, x, want = original(name)
    with torch.no_grad():
        trace = convert(view, [*([Skip()] if skips else []), replace(config, rule=rule)]).eval()(x)
    assert torch.equal(trace.logits, want)
    assert trace.routes.shape[1] >= 3
    assert trace.routes.all()


def test_where_exits_lie() -> None:
    def after(**options: object) -> list[str]:
        return [stop.name for stop in convert(build(spec_of("resnet20")), [Exit(**options)]).stops]

    # Three units a stage, nine in all, of about equal cost: a quarter, half and three quarters of the cost.
    assert after(at="auto", count=3) == ["layer1.1", "layer2.0", "layer3.0"]
    assert after(at="stages") == ["layer1.2", "layer2.2"]
    assert after(at="first") == ["layer1.0"]
    assert after(at="layer3.0, layer1.1") == ["layer1.1", "layer3.0"]
    for wrong in ("layer9.9", "layer3.2", ""):  # of no unit; of the last one, after which the network answers anyway
        with pytest.raises(InputError, match=r"no exit can lie after .*known: auto, stages, first, all, layer1\.0"):
            after(at=wrong)


def test_the_first_exit_that_is_taken_answers() -> None:
    network = toy_exits()
    assert network.columns == ["body.0", "past body.0", "body.1", "body.2", "past body.2", "body.3"]
    x = images(8)
    with torch.no_grad():
        everything = network(x, execution=masked)
    for first, second in itertools.product([False, True], repeat=2):
        route = everything.routes.clone()
        route[:, 1], route[:, 4] = first, second
        with torch.no_grad():
            for execution in (masked, sparse):
                trace = network(x, execution=execution, routes=route)
                said = network(x, execution=masked, routes=route).leaves
                answer = said[2] if first and second else said[1] if first else said[0]
                torch.testing.assert_close(trace.logits, answer, rtol=1e-5, atol=1e-5)
                # Nothing behind an exit that was taken is on a route.
                assert bool(trace.routes[:, 2:].any()) <= first
                assert not trace.routes[:, 5].any() or (first and second)


def test_reach_by_hand() -> None:
    layout = Layout(sections=(0, 0, 0, 1, 1, 2), stops=(2, 4), widths=(1,) * 6)
    gates = torch.tensor([[1.0, 0.0, 0.5, 1.0, 0.5, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]])
    assert layout.reach(gates).tolist() == [[1.0, 0.5, 0.25], [1.0, 0.0, 0.0]]
    assert layout.strike(gates[1:] > 0.5).tolist() == [[True, True, False, False, False, False]]


def test_the_cost_of_every_route_by_enumeration() -> None:
    network = toy_exits(exits=Exit(at="body.1", head="linear", hidden=16))
    costs = CostTable.measure(network)
    f = ToyNet.FLOPS
    # Routers on 4 channels at 8x8: a pooling of 256, and 8 inputs' normalisation, 4 * 8 + 8 * 2 each.
    router, fewer = 4 + 4 * 8 + 8 * 2, 8 + 8 * 8 + 8 * 2
    # The exit pools for its classifier and for its router, which also knows two certainties: 6 inputs.
    leaving = 256 + 4 * 3 + 256 + 4 + 6 * 16 + 16 * 2
    for route in itertools.product([0, 1], repeat=5):
        want = f["stem"] + 256 + 2 * router + route[0] * (f["unit"] + 256 + router) + route[1] * f["unit"] + leaving
        if route[2]:
            want += 256 + router + 128 + fewer + f["head"]
            want += f["down"] if route[3] else f["down shortcut"]
            want += route[4] * f["last"]
        assert costs.of_routes(torch.tensor([route], dtype=torch.bool)).item() == want
    assert costs.minimum == f["stem"] + 256 + 2 * router + leaving
    assert costs.dense == CostTable.measure(convert(toy_view())).dense
    sections = costs.of_sections(torch.ones(1, 5, dtype=torch.float64))
    assert float(sections.sum()) == costs.maximum


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 17),
    bias=st.floats(-3, 3),
    kind=st.sampled_from(sorted(banks)),
    prepared=st.booleans(),
    skips=st.booleans(),
)
def test_masked_and_sparse_execution_decide_alike_and_agree(
    seed: int, count: int, bias: float, kind: str, prepared: bool, skips: bool
) -> None:
    network = toy_exits(seed, kind=kind, bias=bias, skips=skips)
    executors_agree(network, images(count, seed), prepared=prepared)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), bias=st.floats(-3, 3), skips=st.booleans())
def test_what_is_executed_is_what_the_cost_table_charges(seed: int, count: int, bias: float, skips: bool) -> None:
    executed_as_charged(toy_exits(seed, bias=bias, skips=skips), images(count, seed))


def test_the_fast_form_answers_alike() -> None:
    served_alike(toy_exits(seed=3), images(12))


def test_how_many_units_run() -> None:
    network = toy_exits()  # exits after the first and the third of four units
    network.view.units[1].sinks = (Sink.RUN,)  # which makes three units of which a route decides
    assert network.columns == ["body.0", "past body.0", "body.2", "past body.2", "body.3"]
    routes = torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 1, 0, 1, 1]], dtype=torch.bool)
    assert network.units_run(routes).tolist() == [1, 0 + 1 + 1, 1 + 1 + 0 + 1]


def test_exits_learn_by_their_policy_alone() -> None:
    """Neither the relaxation that units learn by nor the weight of the cost moves an exit."""
    for gate in ("benefit", "straight-through", "soft"):
        network = toy_exits().train()
        trace = network(images(8), gate=gates[gate], execution=relaxed, generator=torch.Generator().manual_seed(0))
        (CostTable.measure(network).expected(trace).sum() + trace.logits.sum()).backward()
        assert all(p.grad is None for decider in network.deciders for p in decider.parameters())
        assert any(p.grad is not None for p in network.routers.parameters())


def test_units_do_not_pay_by_the_exits_price() -> None:
    """They have a price of their own: what going on costs teaches exits, whatever the gate relaxes, and no router."""

    def slopes(k_cpt: float) -> tuple[Tensor, Tensor]:
        network = toy_exits().train()
        trace = network(images(8), gate=gates["soft"], execution=relaxed)
        weights = ObjectiveWeights()
        labels, choice = torch.arange(8) % 3, weights.policy.choice(1.0)
        costs = CostTable.measure(network)
        objective(trace, labels, costs, weights, cost_weight=0.0, k_cpt=k_cpt, choice=choice).total.backward()
        routers = torch.cat([p.grad.flatten() for p in network.routers.parameters()])
        exits = torch.cat([p.grad.flatten() for decider in network.deciders for p in decider.parameters()])
        return routers, exits

    free, dear = slopes(0.0), slopes(1e-4)
    torch.testing.assert_close(free[0], dear[0])
    assert (free[1] - dear[1]).abs().max() > 1e-3


@pytest.mark.parametrize("error", ["loss", "wrong"])
def test_decisions_go_by_errors_and_not_by_what_distillation_adds(error: str) -> None:
    """The price of an answer is its cross-entropy, or whether it is wrong; a teacher changes what classifiers learn."""
    labels, config = torch.arange(8) % 3, PolicyConfig("actor", error=error, heads=0.0, decisiveness=0.0)
    weights = ObjectiveWeights(distillation=0.9, policy=config)
    network = toy_exits().train()
    costs, choice = CostTable.measure(network), config.choice(1.0)
    found = []
    for scale in (3.0, -3.0):  # teachers of different minds
        network.zero_grad()
        trace = network(images(8), execution=relaxed)
        teacher = replace(trace, logits=scale * trace.logits.detach().roll(1, dims=1))
        lost = objective(
            trace, labels, costs, weights, cost_weight=0.0, k_cpt=1e-5, choice=choice, teacher=teacher, routing=False
        )
        lost.by_name["inference"].backward()
        deciding = torch.cat([p.grad.flatten() for decider in network.deciders for p in decider.parameters()])
        found.append((deciding, network.backbone.fc.weight.grad.clone(), lost.by_name["inference"].detach()))
    (deciding, head, value), (same, other, again) = found
    torch.testing.assert_close(deciding, same)
    assert value == again
    assert not torch.allclose(head, other)
    # By hand: at each exit an image goes on, for what the section behind costs, or stops.
    known = [(leaf.argmax(1) != labels).float() for leaf in trace.leaves]
    if error == "loss":
        known = [torch.nn.functional.cross_entropy(leaf, labels, reduction="none") for leaf in trace.leaves]
    sections = 1e-5 * costs.of_sections(trace.gates)
    behind = known[2] + sections[:, 2]
    for place in (1, 0):
        go, stop = trace.stops[place].logits.softmax(dim=1).T
        behind = go * behind + stop * known[place] + sections[:, place]
    torch.testing.assert_close(value, behind.mean().detach())


@pytest.mark.parametrize("kind", ["pragmatic", "optimistic"])
def test_a_critics_decisions_are_constant_where_errors_are_minimised(kind: str) -> None:
    """Section 4.2: d-hat is treated as constant. Only the regression of utilities teaches its routers."""
    for utility in (0.0, 0.5):
        network = toy_exits().train()
        trace = network(images(8), execution=relaxed)
        config = PolicyConfig(kind, utility=utility, heads=0.0, error="loss")
        labels, costs = torch.arange(8) % 3, CostTable.measure(network)
        losses = objective(
            trace, labels, costs, ObjectiveWeights(policy=config), cost_weight=0.0, k_cpt=1e-5,
            choice=config.choice(1.0), routing=False,
        )  # fmt: skip
        losses.total.backward()
        slopes = [p.grad for decider in network.deciders for p in decider.parameters()]
        assert any(slope is not None and bool(slope.abs().sum() > 0) for slope in slopes) == (utility > 0)
        assert bool(network.backbone.fc.weight.grad.abs().sum() > 0)


def test_no_decision_sees_what_lies_behind_it() -> None:
    """Whoever changes the last classifier changes no decision, only the answers of those who get there."""
    network = toy_exits()
    x = images(16)
    with torch.no_grad():
        before = network(x)
        network.backbone.fc.weight.neg_()
        after = network(x)
    assert torch.equal(before.routes, after.routes)
    stopped = ~before.routes[:, 4]
    assert 0 < stopped.sum() < 16
    assert torch.equal(before.logits[stopped], after.logits[stopped])
    assert not torch.equal(before.logits[~stopped], after.logits[~stopped])


def test_who_answers_and_how_right_they_are() -> None:
    network, images_ = toy_exits(seed=3), toy_images(90)
    costs = CostTable.measure(network)
    first, second, end = measure_exits(network, images_, costs)
    measured = evaluate(network, images_, costs)
    stops = list(network.layout.stops)
    assert [first.after, second.after, end.after] == ["body.0", "body.2", "end"]
    past = measured.routes[:, stops].double().mean(dim=0).tolist()
    assert [first.stops, second.stops, end.stops] == pytest.approx([1 - past[0], past[0] - past[1], past[1]])
    answered = sum(each.stops * (each.accuracy or 0) for each in (first, second, end))
    assert answered == pytest.approx(measured.accuracy)
    for each, on in ((first, [0, 0]), (second, [1, 0]), (end, [1, 1])):
        with torch.no_grad():
            route = evaluate(network, images_, costs, everywhere=True).margins >= 0
        route[:, stops] = torch.tensor(on, dtype=torch.bool)
        assert evaluate(network, images_, costs, routes=route).accuracy == pytest.approx(each.alone)


def test_in_training_every_image_goes_on_and_every_classifier_learns() -> None:
    network = toy_exits().train()
    trace = network(images(8), execution=relaxed)
    assert [leaf.shape for leaf in trace.leaves] == [(8, 3)] * 3
    torch.stack([leaf.square().mean() for leaf in trace.leaves]).sum().backward()
    heads = [step.head for step in network.steps if isinstance(step, Classify)]
    assert len(heads) == 2
    assert all(p.grad is not None for head in heads for p in head.parameters())
    # The routers read what the backbone computes, and leave it alone.
    network.zero_grad()
    trace = network(images(8), execution=relaxed)
    sum(stop.logits.square().sum() for stop in trace.stops).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for decider in network.deciders for p in decider.parameters())


@pytest.mark.parametrize("skips", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, skips: bool) -> None:
    network = toy_exits_of_resnet20(skips)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = network(x)
    small = compact(network, want.routes)
    for name, kept in {"whole": network, "compact": small.network}.items():
        save_network(tmp_path / name, kept, about={})
        again = load(tmp_path / name)
        with torch.no_grad():
            got, kept_gives = again(x), kept(x)
        assert torch.equal(got.logits, kept_gives.logits)
        torch.testing.assert_close(got.logits, want.logits, rtol=1e-3, atol=1e-3)


def toy_exits_of_resnet20(skips: bool) -> RoutedNetwork:
    torch.manual_seed(0)
    junctions: list[Junction] = [*([Skip()] if skips else []), Exit(at="layer1.1,layer3.0", width=8)]
    network = convert(build(spec_of("resnet20")), junctions).eval()
    open_to_images(network)
    return network
