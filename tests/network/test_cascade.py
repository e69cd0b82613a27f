"""A cascade answers as its networks do, asks only who it must, and pays for that alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import routekit
from routekit.cost.cascade import CascadeCost
from routekit.cost.model import CostModel
from routekit.errors import InputError
from routekit.export.cascade import load, save_cascade
from routekit.export.checkpoint import save_network
from routekit.network.cascade import Cascade
from routekit.network.network import RoutedNetwork
from routekit.routing.certainty import confidence, negentropy
from tests.toy import toy_noise as images
from tests.toy import toy_routed as routed


def networks() -> list[RoutedNetwork]:
    return [routed(seed=seed).eval() for seed in (0, 1, 2)]


def answers(network: RoutedNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x).logits.softmax(dim=1)


def test_certainties_by_hand() -> None:
    sure, torn, leaning = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25]]).unbind()
    assert confidence(torch.stack([sure, torn, leaning])).tolist() == [1.0, 0.5, 0.75]
    assert negentropy(torch.stack([sure, torn])).tolist() == [1.0, 0.0]
    # 0.75 log2(0.75) + 0.25 log2(0.25) = -0.8113 bits, of at most one.
    assert float(negentropy(leaning.unsqueeze(0))) == pytest.approx(1 - 0.8113, abs=1e-4)


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
@torch.no_grad()
def test_the_ends_of_the_dial(rule: str) -> None:
    stages, x = networks()[:2], images(9)
    cascade = Cascade(stages, rule=rule)
    for threshold, answering in ((-1.0, stages[0]), (1.0, stages[1])):
        trace = cascade(x, threshold=threshold)
        torch.testing.assert_close(trace.logits.exp(), answers(answering, x), rtol=1e-5, atol=1e-6)
        assert trace.routes[:, 4].tolist() == [threshold > 0] * 9


@torch.no_grad()
def test_only_who_is_asked_computes() -> None:
    x = images(12) * torch.linspace(0.1, 8, 12).view(-1, 1, 1, 1)
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
        stage.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    cascade = Cascade(stages, threshold=threshold)
    trace = cascade(x)
    assert seen == [12, int(asks.sum()), int(again.sum())]
    assert torch.equal(trace.routes[:, 4], asks)
    assert torch.equal(trace.routes[:, 9], again)
    assert not trace.routes[~asks][:, 4:].any()
    assert cascade.columns[4] == "ask 1"
    assert cascade.columns[9:11] == ["ask 2", "2/body.0"]
    assert (trace.margins[~asks][:, 5:] == -torch.inf).all()
    assert torch.equal(trace.margins[:, :5] >= 0, trace.routes[:, :5])

    table = [CostModel.measure(stage) for stage in stages]
    paid = table[0].of_routes(stages[0](x).routes)
    paid[asks] += table[1].of_routes(stages[1](x[asks]).routes)
    paid[again] += table[2].of_routes(stages[2](x[again]).routes)
    costs = CascadeCost.measure(cascade)
    assert torch.equal(costs.of_routes(trace.routes), paid)
    assert costs.dense == table[2].dense


@torch.no_grad()
def test_the_fast_form_answers_alike() -> None:
    x = images(12) * torch.linspace(0.1, 8, 12).view(-1, 1, 1, 1)
    cascade = Cascade(networks()[::-1], threshold=0.45)
    want = cascade(x)
    assert 0 < want.routes[:, 4].sum() < 12
    for form in (routekit.optimize(cascade), routekit.optimize(cascade, x)):
        answer = form(x)
        assert torch.equal(answer.routes, want.routes)
        torch.testing.assert_close(answer.logits, want.logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_averaging_what_was_asked() -> None:
    stages, x = networks(), images(6)
    said = [answers(stage, x) for stage in stages]
    trace = Cascade(stages, average=True)(x, threshold=1.0)
    torch.testing.assert_close(trace.logits.exp(), torch.stack(said).mean(0), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_route_can_be_forced() -> None:
    stages, x = networks()[:2], images(8)
    cascade = Cascade(stages, threshold=0.6)
    routes = torch.rand(8, 9, generator=torch.Generator().manual_seed(0)) > 0.5
    trace = cascade(x, routes=routes)
    asked = routes[:, 4]
    assert torch.equal(trace.routes[:, :5], routes[:, :5])
    assert torch.equal(trace.routes[asked], routes[asked])
    assert not trace.routes[~asked, 5:].any()
    want = stages[1](x[asked], routes=routes[asked, 5:]).logits.softmax(1)
    torch.testing.assert_close(trace.logits[asked].exp(), want, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_each_network_sees_images_normalised_as_it_wants() -> None:
    stages, pixels = networks()[:2], torch.rand(5, 3, 8, 8)
    spec = stages[1].view.spec
    changed = type(spec)(
        spec.source, spec.name, spec.num_classes, spec.input_size, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)
    )
    stages[1].view.spec = changed

    def normalized(network: RoutedNetwork) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (network.spec.mean, network.spec.std))
        return (pixels - mean) / std

    got = Cascade(stages)(normalized(stages[0]), threshold=1.0).logits.exp()
    torch.testing.assert_close(got, answers(stages[1], normalized(stages[1])), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_joined() -> None:
    with pytest.raises(InputError, match="at least two"):
        Cascade(networks()[:1])
    small, other = networks()[:2]
    other.view.spec = type(other.spec)("custom", "other", 5, (3, 8, 8))
    with pytest.raises(InputError, match=r"custom:toy takes .* to 3 classes, custom:other .* to 5"):
        Cascade([small, other])
    with pytest.raises(InputError, match="confidence"):
        Cascade(networks(), rule="confidense")


@torch.no_grad()
def test_a_cascade_survives_the_disk(tmp_path: Path) -> None:
    names = ["resnet20", "resnet32"]
    stages = []
    for name in names:
        torch.manual_seed(0)
        network = routekit.convert(routekit.load_backbone(name, weights="none")).eval()
        save_network(tmp_path / name, network, about={})
        stages.append(network)
    cascade = Cascade(stages, rule="learned", average=True, threshold=0.3)
    cascade.learned[0].weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    save_cascade(tmp_path / "joined", cascade, [tmp_path / name for name in names], about={})
    again = load(tmp_path / "joined")
    assert isinstance(again, Cascade)
    x = torch.randn(4, 3, 32, 32)
    want, got = cascade(x), again(x)
    assert torch.equal(got.logits, want.logits)
    assert torch.equal(got.routes, want.routes)
    assert again.name == "resnet20 -> resnet32"
    (tmp_path / "joined" / "cascade.json").write_text('{"format": "another"}')
    with pytest.raises(InputError, match=r"cascade\.json is no routekit cascade"):
        load(tmp_path / "joined")
