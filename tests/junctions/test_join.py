"""Joined networks answer as they do alone, ask the next only about whom they must, and images pay for that alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import routekit
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import load, save_network
from routekit.junctions.convert import convert, join
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import open_to_images, small_view, toy_view
from tests.toy import toy_noise as images
from tests.toy import toy_routed as routed


def networks() -> list[RoutedNetwork]:
    return [routed(seed=seed).eval() for seed in (0, 1, 2)]


def answers(network: RoutedNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).logits.softmax(dim=1)


def defer(network: RoutedNetwork, threshold: float) -> RoutedNetwork:
    """Ask the next network wherever an answer is not surer than this."""
    for decider in network.deciders:
        decider.bias.fill_(threshold)
    return network


def uneven(count: int) -> Tensor:
    """Images that are answered with any certainty."""
    return images(count) * torch.linspace(0.1, 8, count).view(-1, 1, 1, 1)


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
@torch.no_grad()
def test_at_the_ends_of_the_threshold_one_network_answers_all(rule: str) -> None:
    stages, x = networks()[:2], images(9)
    joined = join(stages, rule=rule)
    assert joined(x).routes[:, 4].all(), "at first all images go on to the last one"
    for threshold, answering in ((-1.0, stages[0]), (1.0, stages[1])):
        trace = defer(joined, threshold)(x)
        torch.testing.assert_close(trace.logits.softmax(dim=1), answers(answering, x), rtol=1e-5, atol=1e-6)
        assert trace.routes[:, 4].tolist() == [threshold > 0] * 9


@torch.no_grad()
def test_only_who_is_asked_computes() -> None:
    x = uneven(12)
    stages = networks()[::-1]
    first, second = answers(stages[0], x), answers(stages[1], x)
    sure, surer = first.amax(1), second.amax(1)

    def counts(threshold: float) -> tuple[int, int]:
        return int((sure <= threshold).sum()), int(((sure <= threshold) & (surer <= threshold)).sum())

    threshold = next(t for t in [*sure.tolist(), *surer.tolist()] if 0 < counts(t)[1] < counts(t)[0] < 12)
    asks = sure <= threshold
    again = asks & (surer <= threshold)
    seen: list[int] = []
    for stage in stages:
        stage.backbone.conv.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    joined = defer(join(stages), threshold)
    trace = joined(x)
    assert seen == [12, int(asks.sum()), int(again.sum())]
    assert torch.equal(trace.routes[:, 4], asks)
    assert torch.equal(trace.routes[:, 9], again)
    assert not trace.routes[~asks][:, 4:].any()
    assert joined.columns == [
        *(f"0/body.{unit}" for unit in range(4)),
        "past network 0",
        *(f"1/body.{unit}" for unit in range(4)),
        "past network 1",
        *(f"2/body.{unit}" for unit in range(4)),
    ]
    assert (trace.margins[~asks][:, 5:] == -torch.inf).all()
    assert torch.equal(trace.margins[:, :5] >= 0, trace.routes[:, :5])

    table = [CostTable.measure(stage) for stage in stages]
    paid = table[0].of_routes(stages[0](x).routes)
    paid[asks] += table[1].of_routes(stages[1](x[asks]).routes)
    paid[again] += table[2].of_routes(stages[2](x[again]).routes)
    costs = CostTable.measure(joined)
    assert torch.equal(costs.of_routes(trace.routes), paid)
    assert costs.dense == table[2].dense
    assert joined.units_run(trace.routes).tolist() == trace.routes[:, costs.layout.of_units].sum(dim=1).tolist()


@torch.no_grad()
def test_the_fast_form_answers_alike() -> None:
    x = uneven(12)
    joined = defer(join(networks()[::-1]), 0.45)
    want = joined(x)
    assert 0 < want.routes[:, 4].sum() < 12
    for form in (routekit.optimize(joined), routekit.optimize(joined, x)):
        answer = form(x)
        assert torch.equal(answer.routes, want.routes)
        torch.testing.assert_close(answer.logits, want.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_however_it_is_executed(average: bool) -> None:
    x = uneven(12)
    joined = defer(join(networks()[::-1], average=average), 0.45)
    executed_as_charged(joined, x)
    executors_agree(joined, x, prepared=True)
    served_alike(joined, x)


@torch.no_grad()
def test_averaging_what_was_asked() -> None:
    stages, x = networks(), images(6)
    said = [answers(stage, x) for stage in stages]
    joined = join(stages, average=True)
    torch.testing.assert_close(joined(x).logits.exp(), torch.stack(said).mean(0), rtol=1e-5, atol=1e-6)
    # Who was not asked has no part in it.
    joined.deciders[1].bias.fill_(-1.0)
    torch.testing.assert_close(joined(x).logits.exp(), torch.stack(said[:2]).mean(0), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_route_can_be_forced() -> None:
    stages, x = networks()[:2], images(8)
    joined = defer(join(stages), 0.6)
    routes = torch.rand(8, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    trace = joined(x, routes=routes)
    asked = routes[:, 4]
    assert torch.equal(trace.routes[:, :5], routes[:, :5])
    assert torch.equal(trace.routes[asked], routes[asked])
    assert not trace.routes[~asked, 5:].any()
    for stage, own, taken in ((0, ~asked, routes[:, :4]), (1, asked, routes[:, 5:])):
        want = stages[stage](x[own], routes=taken[own]).logits
        torch.testing.assert_close(trace.logits[own], want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_each_network_sees_images_normalised_as_it_wants() -> None:
    view, pixels = toy_view(1), torch.rand(5, 3, 8, 8)
    view.spec = replace(view.spec, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    last = convert(view, [Skip()]).eval()
    open_to_images(last, 1)
    stages = [routed(seed=0), last]

    def normalized(network: RoutedNetwork) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.spec.mean, network.spec.std))
        return (pixels - mean) / std

    joined = join(stages)
    assert joined.spec == stages[0].spec
    got = joined(normalized(stages[0])).logits.softmax(dim=1)
    torch.testing.assert_close(got, answers(last, normalized(last)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_who_stops_inside_of_a_network_is_not_asked_about_again() -> None:
    x = uneven(16)
    torch.manual_seed(0)
    first = convert(toy_view(), [Skip(), Exit(at="body.0", head="linear", rule="confidence")]).eval()
    head, alone = first(x, execution=masked).leaves
    stages = [first, routed(seed=1)]
    joined = join(stages)
    assert joined.answerers == ["0/body.0", "network 0", "end"]
    leaves, inside = joined.deciders
    sure, surer = head.softmax(dim=1).amax(dim=1), alone.softmax(dim=1).amax(dim=1)
    leaves.bias.copy_(sure.sort().values[7:9].mean())
    left = sure <= leaves.bias
    inside.bias.copy_(surer[left].sort().values[3:5].mean())
    trace = joined(x)
    stops = list(trace.layout.stops)
    assert [joined.columns[column] for column in stops] == ["past 0/body.0", "past network 0"]
    assert trace.routes[:, stops].sum(dim=0).tolist() == [8, 4]
    torch.testing.assert_close(trace.logits[~left], head[~left])
    answered = left & (surer > inside.bias)
    torch.testing.assert_close(trace.logits[answered], alone[answered])
    asked = left & ~answered
    torch.testing.assert_close(trace.logits[asked], stages[1](x[asked]).logits)
    executors_agree(joined, x, prepared=True)
    executed_as_charged(joined, x)


def test_what_cannot_be_joined() -> None:
    with pytest.raises(InputError, match="at least two"):
        join(networks()[:1])
    view = toy_view()
    other = convert(replace(view, spec=replace(view.spec, name="other", num_classes=5)), [Skip()])
    with pytest.raises(InputError, match=r"custom:toy takes .* to 3 classes, custom:other .* to 5"):
        join([routed(), other])
    with pytest.raises(InputError, match="confidence"):
        join(networks(), rule="confidense")
    with pytest.raises(InputError, match="unknown rule 'learned'"):
        join(networks(), rule="learned")
    with pytest.raises(InputError, match="give all of its networks at once"):
        join([join(networks()[:2]), routed(seed=2)])


@torch.no_grad()
def test_a_joined_network_survives_the_disk(tmp_path: Path) -> None:
    stages = [convert(small_view(seed, depth), [Skip()]).eval() for seed, depth in ((0, 14), (1, 20))]
    for stage in stages:
        open_to_images(stage)
    joined = join(stages, rule="idk", average=True)
    (decider,) = joined.deciders
    decider.certainty.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    x = images(8)
    sure = decider.certainty(stages[0](x).logits.softmax(dim=1))
    decider.bias.copy_(sure.sort().values[3:5].mean())
    want = joined(x)
    assert want.routes[:, joined.layout.stops[0]].sum() == 4
    save_network(tmp_path, joined, about={})
    again = load(tmp_path)
    assert again.blueprint.rule == "idk"
    assert again.blueprint.average
    got = again(x)
    assert torch.equal(got.logits, want.logits)
    assert torch.equal(got.routes, want.routes)
    assert again.name == "resnet14 -> resnet20"
    assert again.columns == joined.columns
