"""What trains decisions: exits' policies and rules, narrow forms, prices, throughput."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.evaluation.calibrate import set_price
from routekit.evaluation.evaluate import evaluate
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.deciders import LearnedDecider
from routekit.network.execution import masked, relaxed
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import PriceRange
from routekit.network.program import Classify
from routekit.objective.objective import ObjectiveWeights, objective
from routekit.objective.policy import PolicyConfig
from routekit.objective.terms import feature_distillation
from routekit.routing.certainty import certainties
from routekit.routing.policy import reach_of
from routekit.routing.router import RouterConfig
from routekit.training.log import Progress
from routekit.training.schedule import TrainingConfig
from routekit.training.teacher import Teacher
from routekit.training.throughput import adjust_for_throughput, layers_of, squares_of
from tests.toy import small_view, toy_noise, toy_view
from tests.training.runs import BENEFIT, CONFIG, trainer, with_exits


def backbone_of(network: RoutedNetwork) -> str:
    """Where the original model lies in a network's state."""
    return next(f"_models.{place}." for place, form in enumerate(network.forms) if form.model is network.backbone)


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("kind", ["actor", "pragmatic", "optimistic"])
def test_a_network_with_exits_learns_to_meet_its_budget(kind: str, skips: bool) -> None:
    seen: list[Progress] = []
    run = trainer(**with_exits(kind, skips=skips), on_step=seen.append)
    before = [p.detach().clone() for each in run.network.deciders for p in each.parameters()]
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.06)
    assert {"heads", "inference"} < set(seen[-1].losses)
    after = [p.detach() for each in run.network.deciders for p in each.parameters()]
    assert before
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("exits", [True, False])
def test_units_spare_what_exits_spend_to_the_last_step(exits: bool) -> None:
    """Exits learn to let more images past after the routers have frozen; somebody has to pay for that."""
    run = trainer(**with_exits()) if exits else trainer(config=BENEFIT)
    last = run.schedule.steps - 1
    assert run.schedule.is_hard(last)
    before = run.network.routers.bias.clone()
    with torch.no_grad():
        trace = run.network.eval()(toy_noise(16), execution=masked)
    run.control.follow(last, trace)
    assert torch.equal(run.network.routers.bias, before) != exits


def test_only_the_weights_that_are_activated_are_held_down() -> None:
    network = convert(toy_view(), [Exit(at="body.1", head="linear", hidden=8)]).eval()
    model, (decider,) = network.backbone, network.deciders
    assert isinstance(decider, LearnedDecider)
    (head,) = [step.head for step in network.steps if isinstance(step, Classify)]

    def total(*tensors: torch.Tensor) -> float:
        return float(sum(tensor.detach().square().sum() for tensor in tensors))

    body, router = model.body, decider.router
    squares = squares_of(layers_of(network))
    assert squares.detach().tolist() == pytest.approx(
        [
            total(model.conv.weight, body[0].conv.weight, body[1].conv.weight, router[0].weight, router[2].weight),
            total(body[2].conv.weight, body[2].downsample.weight, body[3].conv.weight),
            total(head.classifier.weight),
            total(model.fc.weight),
        ]
    )
    for routes in (False, True):
        trace = network(toy_noise(6), execution=masked)
        weights = ObjectiveWeights(policy=PolicyConfig("actor", l2=0.1, l2_routes=routes, decisiveness=0.0))
        choice = weights.policy.choice(1.0)
        labels, costs = torch.zeros(6, dtype=torch.int64), CostTable.measure(network)
        losses = objective(
            trace,
            labels,
            costs,
            weights,
            cost_weight=0.0,
            routing=False,
            choice=choice,
            squares=squares_of(layers_of(network)),
        )
        past = choice(trace.decisions[0].logits)[:, 0].mean()
        want = 0.1 * (squares[0] + past * squares[1] + (1 - past) * squares[2] + past * squares[3])
        torch.testing.assert_close(losses.by_name["l2"], want)
        (slope,) = torch.autograd.grad(losses.by_name["l2"], body[3].conv.weight, retain_graph=True)
        torch.testing.assert_close(slope, 0.2 * past.detach() * body[3].conv.weight)
        (slope,) = torch.autograd.grad(losses.by_name["l2"], router[-1].bias, allow_unused=True)
        assert (slope is not None) == routes


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_a_threshold_on_certainty_meets_the_budget(rule: str) -> None:
    run = trainer(**with_exits(rule=rule, skips=False))
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.02)
    (decider,) = run.network.deciders
    assert not list(decider.parameters())
    # Whoever stops is surer than whoever goes on.
    x, _ = next(iter(run.data.val.batches(torch.arange(96), 96)))
    spec = run.network.view.spec
    with torch.no_grad():
        trace = run.network.eval()(normalize(x, spec.mean, spec.std), execution=masked)
    sure, stops = certainties[rule](trace.leaves[0].softmax(dim=1)), ~trace.routes[:, 0]
    assert 0 < stops.sum() < 96
    assert sure[stops].min() >= sure[~stops].max()


def test_a_rule_needs_no_training_to_meet_its_budget() -> None:
    options = with_exits(rule="confidence", skips=False)
    run = trainer(**options | {"config": replace(options["config"], epochs=0)})
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.06)
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))
    # What learns is as it was converted: exact.
    options = with_exits(skips=False)
    run = trainer(**options | {"config": replace(options["config"], epochs=0)})
    run.fit()
    assert float(run.network.deciders[0].bias) == 0.0


@pytest.mark.parametrize("cascade", [True, False])
def test_narrow_forms_learn_to_meet_the_budget(cascade: bool) -> None:
    torch.manual_seed(0)
    junction = Cascade(width=0.25, own=False) if cascade else Branch(width=(0.25,))
    network = convert(small_view(depth=8), [junction], routers=RouterConfig(hidden=8))
    seen: list[Progress] = []
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 6})
    run = trainer(network=network, teacher=convert(small_view(depth=8)), config=config, on_step=seen.append)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.03)
    own = [name for name in before if not name.startswith(backbone_of(network)) and "running_mean" in name]
    assert len(own) >= 2 * len(network.view.units)  # two batch norms in each narrow block
    assert not any(torch.equal(before[name], network.state_dict()[name]) for name in own)
    # Without a policy to learn, both answers are minimised alike on all images.
    assert ("heads" in seen[-1].losses) == cascade
    assert "inference" not in seen[-1].losses


def test_one_network_learns_several_budgets() -> None:
    torch.manual_seed(0)
    junctions = [Skip(), Exit(at="body.1", head="linear", hidden=8)]
    routers = RouterConfig(hidden=8, open_logit=0.5)
    # A toy's unit costs a thousandth of ten million multiply-adds, and is worth some tenths of the loss.
    network = convert(toy_view(), junctions, routers=routers, adaptive_cost=PriceRange(1.0, 3000.0))
    run = trainer(**{**with_exits("pragmatic", error="loss", utility=1.0), "network": network})
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.06)
    found = []
    for share in (0.55, 0.85):
        cost = set_price(network, run.data.val, run.costs, share * run.costs.dense)
        found.append(float(network.pricing.k_cpt))
        assert cost / run.costs.dense == pytest.approx(share, abs=0.06)
    assert found[0] > found[1]


@pytest.mark.parametrize("skips", [True, False])
def test_units_find_the_prices_of_their_budgets(skips: bool) -> None:
    torch.manual_seed(0)
    junction = Skip() if skips else Branch(width=(0.25,))
    network = convert(small_view(depth=8), [junction], routers=RouterConfig(hidden=8), adaptive_cost=PriceRange())
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 6, "check_every": 2})
    run = trainer(network=network, config=config)
    first = network.pricing.range
    run.fit()
    found = network.pricing.range
    assert found.lowest >= first.lowest
    assert (found.lowest, found.highest) != (first.lowest, first.highest)
    prices = []
    for share in (0.7, 0.8, 0.9):
        cost = set_price(network, run.data.val, run.costs, share * run.costs.dense)
        prices.append(float(network.pricing.k_cpt))
        assert cost / run.costs.dense == pytest.approx(share, abs=0.06)
    assert prices == sorted(prices, reverse=True)
    assert len(set(prices)) == 3


def test_drawing_and_exploring_resume_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routekit.training.trainer.SAVE_EVERY_SECONDS", 0.0)
    settings: dict = {"kind": "pragmatic", "error": "wrong", "epsilon": 0.1, "draw": True}
    options = with_exits(**settings)
    shorter = {"config": replace(options["config"], epochs=3)}
    whole = trainer(**options | shorter).fit()

    def die(progress: Progress) -> None:
        if progress.step == 11:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trainer(tmp_path, **with_exits(**settings) | shorter, on_step=die).fit()
    resumed = trainer(tmp_path, **with_exits(**settings) | shorter).fit()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_every_layer_that_few_images_reach_learns_as_fast() -> None:
    network = convert(toy_view(), [Exit(at="body.0,body.1", head="linear", hidden=8)]).train()
    trace = network(toy_noise(8), execution=relaxed)
    network.zero_grad()
    scores = [stop.logits - 1 for stop in trace.stops]
    torch.stack([tensor.square().mean() for tensor in (*trace.leaves, *scores)]).sum().backward()
    model, deciders = network.backbone, network.deciders
    heads = [step.head.classifier for step in network.steps if isinstance(step, Classify)]

    def quarter(scores: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.25, 0.75]).expand(len(scores), 2)

    # A quarter goes on at each exit: all, a quarter and a sixteenth reach the parts and meet the routers at their ends.
    # Three quarters of these stop at each classifier, and the last sixteenth meets the last one.
    reached = {
        model.conv.weight: 1.0,
        model.body[0].conv.weight: 1.0,
        model.body[1].conv.weight: 1 / 4,
        model.body[3].conv.weight: 1 / 16,
        deciders[0].router[-1].bias: 1.0,
        deciders[1].router[-1].bias: 1 / 4,
        heads[0].weight: 3 / 4,
        heads[1].weight: 3 / 16,
        model.fc.weight: 1 / 16,
    }
    before = {parameter: parameter.grad.clone() for parameter in reached}
    assert all(bool(grad.abs().sum() > 0) for grad in before.values())
    layers = layers_of(network)
    every = [id(p) for each in layers for p in (*each.computing, *each.deciding)]
    assert sorted(every) == sorted(id(p) for p in network.parameters())
    reach = reach_of(trace, quarter)
    adjust_for_throughput(layers, reach, deciding_only=True)
    deciding = {deciders[0].router[-1].bias, deciders[1].router[-1].bias}
    for parameter, share in reached.items():
        rate = 1 / share if parameter in deciding else 1.0
        torch.testing.assert_close(parameter.grad, rate * before[parameter])
        parameter.grad.copy_(before[parameter])
    adjust_for_throughput(layers, reach)
    for parameter, share in reached.items():
        torch.testing.assert_close(parameter.grad, before[parameter] / share)


@pytest.mark.parametrize(("heads", "features", "whole"), [(0.0, 0.0, True), (0.5, 0.0, False), (0.0, 1.0, False)])
def test_what_other_terms_teach_from_all_images_is_not_adjusted(
    heads: float, features: float, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gets behind an exit that all take: a hundred times what teaches it nevertheless would explode."""
    seen: list[bool] = []

    def record(_: object, __: torch.Tensor, *, deciding_only: bool) -> None:
        seen.append(deciding_only)

    monkeypatch.setattr("routekit.training.throughput.adjust_for_throughput", record)
    options = with_exits(skips=False, heads=heads)
    weights = replace(options["weights"], feature_distillation=features)
    trainer(**options | {"weights": weights, "config": replace(options["config"], epochs=1)}).fit()
    assert {*seen} == {not whole}


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_is_frozen_stays_to_the_last_bit(average: float) -> None:
    torch.manual_seed(0)
    network = convert(small_view(), [Cascade(width=0.5, own=True)])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert any(not name.startswith(backbone_of(network)) for name in before)
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 2, "frozen": True, "average": average})
    run = trainer(network=network, teacher=convert(small_view()), config=config)
    run.fit()
    for name, value in network.state_dict().items():
        # Running statistics are part of what stays. What was added learns, all of it.
        if name.startswith(backbone_of(network)):
            assert torch.equal(value, before[name]), name
        elif value.numel() and not name.endswith("num_batches_tracked"):
            assert not torch.equal(value, before[name]), name


def test_a_frozen_network_teaches_what_its_teacher_would() -> None:
    network, same, other = (
        convert(small_view(), [Cascade(width=0.5, own=True)]),
        convert(small_view()),
        convert(small_view(seed=1)),
    )
    network.train().backbone.eval()
    x = toy_noise(6)
    said = network(x, keep_features=True)
    itself = Teacher(same, network, frozen=True, features=True)
    assert itself.is_learner
    own, asked = itself(x, said), same(x, keep_features=True)
    assert torch.equal(own.logits, asked.logits)
    (features,), (wanted) = own.features, asked.features
    assert len(features) > 1
    assert all(torch.equal(one, two) for one, two in zip(features, wanted[0], strict=True))
    # A teacher that is another network is asked, and so is one whose learner changes.
    assert torch.equal(Teacher(other, network, frozen=True, features=False)(x, said).logits, other.predict(x))
    assert not Teacher(same, network, frozen=False, features=False).is_learner


def test_a_narrow_form_learns_from_the_teachers_features_too() -> None:
    network = convert(small_view(), [Cascade(width=0.5, own=False)]).train()
    teacher = convert(small_view(seed=1)).eval()
    x, labels = toy_noise(6), torch.zeros(6, dtype=torch.int64)
    trace = network(x, execution=masked, keep_features=True)
    taught = teacher(x, keep_features=True)
    weights = ObjectiveWeights(feature_distillation=2.0, distillation=0.5)
    losses = objective(
        trace, labels, CostTable.measure(network), weights, cost_weight=0.0, teacher=taught, routing=False
    )
    inside, own = trace.features
    (known,) = taught.features
    assert [feature.shape for feature in inside] == [feature.shape for feature in own]
    want = feature_distillation(own, known) + feature_distillation(inside, known)
    torch.testing.assert_close(losses.by_name["feature_distillation"], want)
    assert float(feature_distillation(inside, known).detach()) > 0


def test_a_budget_is_met_as_inference_decides() -> None:
    """Sampled routes cost other than hard ones: the last phase, the calibration and the measurement all sample."""
    torch.manual_seed(0)
    network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5))
    config = TrainingConfig(**{**vars(CONFIG), "gate": "soft", "temperature": (0.2, 0.2)})
    run = trainer(network=network, config=config, weights=ObjectiveWeights(distillation=0.5), inference="bernoulli")
    seen: set[bool] = set()
    run.on_step = lambda progress: seen.add(progress.phase == "hard")
    run.fit()
    assert seen == {True, False}
    sampled = evaluate(network, run.data.val, run.costs, gate=run.gate)
    assert sampled.cost / run.costs.dense == pytest.approx(0.7, abs=0.02)
    assert run.realized == pytest.approx(sampled.cost / run.costs.dense)
    again = evaluate(network, run.data.val, run.costs, gate=run.gate, seed=1)
    assert not torch.equal(again.routes, sampled.routes)
    assert evaluate(network, run.data.val, run.costs).cost != sampled.cost
