"""What decides at a stop, and the classifiers that it decides about."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.formats.checkpoint import SPEC, load, save_network
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.macs import count
from routekit.network.deciders import DeciderConfig, RuleDecider
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify
from routekit.objective.policy import exit_tree
from routekit.routing.certainty import certainties, confidence, lead, negentropy
from routekit.routing.policy import expected_cost, softly
from routekit.routing.router import pool
from tests.toy import toy_exits
from tests.toy import toy_noise as images


def head_of(network: RoutedNetwork) -> torch.nn.Module:
    """The classifier of the only exit."""
    (step,) = (step for step in network.steps if isinstance(step, Classify))
    return step.head


def test_certainties_by_hand() -> None:
    sure, torn, leaning = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25]]).unbind()
    assert confidence(torch.stack([sure, torn, leaning])).tolist() == [1.0, 0.5, 0.75]
    assert negentropy(torch.stack([sure, torn])).tolist() == [1.0, 0.0]
    # 0.75 log2(0.75) + 0.25 log2(0.25) = -0.8113 bits, of at most one.
    assert float(negentropy(leaning.unsqueeze(0))) == pytest.approx(1 - 0.8113, abs=1e-4)


def test_what_a_router_gets_of_an_answer() -> None:
    """The lead grows where probabilities have long been 1; both are of the answer alone, whatever the labels are."""
    logits = torch.tensor([[8.0, 2.0, -1.0], [30.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert lead(logits).tolist() == [6.0, 30.0, 0.0]
    network = toy_exits(exits=Exit(at="body.0", head="linear", features=0.1), skips=False).eval()
    (decider,) = network.deciders
    inputs = []
    decider.router.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    x = network.view.stem(images(4))
    answer = head_of(network)(x).detach()
    decider(x, answer)
    features = (pool(x) - decider.normalize.running_mean) * (decider.normalize.running_var + 1e-5).rsqrt()
    torch.testing.assert_close(inputs[0][:, :-2], 0.1 * features)
    torch.testing.assert_close(inputs[0][:, -2], lead(answer) / 3)
    torch.testing.assert_close(inputs[0][:, -1], negentropy(answer.softmax(dim=1)))


def test_a_folded_decider_decides_the_same() -> None:
    network = toy_exits(exits=Exit(at="body.0", head="deep", width=8, features=0.1), skips=False)
    (decider,) = network.deciders
    torch.manual_seed(0)
    torch.nn.init.normal_(decider.router[2].weight)
    for _ in range(5):
        network.train()(images(16))  # statistics that are not those of a new batch norm
    x = network.eval().view.stem(images(8))
    with torch.no_grad():
        answer = head_of(network)(x)
        before = decider(x, answer)
        decider.fold()
        after = decider(x, answer)
    torch.testing.assert_close(before, after)
    assert (before[:, 0] - before[:, 1]).std() > 1e-3


def paper_network(*, detach: bool) -> RoutedNetwork:
    """Three columns, with exits as those of McGill and Perona, which decide by what they see; in float64."""
    torch.manual_seed(0)
    exits = Exit(
        at="all", head="linear", hidden=4, layers=2, normalize=True, answer=False, features=None, detach=detach
    )
    network = convert(build(spec_of("pyramid3", num_classes=4, input_size=(3, 16, 16))), [exits]).double().train()
    for decider in network.deciders:
        torch.nn.init.normal_(decider.router[-1].weight)
    return network


def decision_loss(network: RoutedNetwork, x: Tensor) -> Tensor:
    """What is expected of the decisions alone: of answers whose errors are given."""
    trace = network(x, execution=masked)
    errors = [torch.linspace(lowest, 1, len(x), dtype=torch.float64) for lowest in (0.9, 0.5, 0.1)]
    network_of = exit_tree(trace, CostTable.measure(paper_network(detach=True).float()), errors, 1e-7)
    return expected_cost(network_of, softly(0.7)).mean()


def test_routing_teaches_the_columns_where_it_is_told_to() -> None:
    """Section 4.1 of McGill and Perona: routing and classification are learned simultaneously."""
    x = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for detach in (False, True):
        network = paper_network(detach=detach)
        decision_loss(network, x).backward()
        taught = [name for name, p in network.backbone.named_parameters() if p.grad is not None and p.grad.any()]
        # No exit lies behind the last column.
        assert {name.split(".")[1] for name in taught} == (set() if detach else {"0", "1"})
        assert all(decider.router[0].weight.grad.any() for decider in network.deciders)
    network = paper_network(detach=False)
    weight = network.backbone.columns[0].finer[1].weight
    (found,) = torch.autograd.grad(decision_loss(network, x), weight)
    step = 1e-6 * found / found.norm()
    with torch.no_grad():
        weight.add_(step)
        above = decision_loss(network, x)
        weight.sub_(2 * step)
        below = decision_loss(network, x)
    assert float(above - below) / 2e-6 == pytest.approx(float(found.norm()), rel=1e-4)


def test_a_router_may_read_features_as_they_are() -> None:
    network = paper_network(detach=True).eval()
    decider = network.deciders[0]
    x = network.view.units[0].run(network.view.stem(torch.randn(3, 3, 16, 16, dtype=torch.float64)))
    want = network.view.summary(x)
    torch.testing.assert_close(decider.summary(x), want)
    before = decider.margin(x, torch.zeros(3, 4))
    decider.fold()
    assert torch.equal(decider.margin(x, torch.zeros(3, 4)), before)
    assert float(before.detach().std()) > 0


@torch.no_grad()
def test_exits_from_before_there_were_these_settings_decide_as_then(tmp_path: Path) -> None:
    view = build(spec_of("resnet20", num_classes=4))
    network = convert(view, [Exit(at="layer1.0", head="linear")]).eval()
    for parameter in network.routing_parameters():
        parameter.normal_()
    save_network(tmp_path, network, about={})
    spec = json.loads((tmp_path / SPEC).read_text())
    assert spec["networks"][0]["junctions"][0].pop("detach") is True
    (tmp_path / SPEC).write_text(json.dumps(spec))
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(load(tmp_path, verify=False)(x).margins, network(x).margins)


def test_a_linear_classifier_begins_as_the_paper_says() -> None:
    """Section 4.7: Xavier's method, and biases zero."""
    torch.manual_seed(0)
    head = head_of(convert(build(spec_of("resnet20")), [Exit(at="layer3.0", head="linear")]))
    assert not head.classifier.bias.any()
    assert float(head.classifier.weight.detach().std()) == pytest.approx((2 / (64 + 10)) ** 0.5, rel=0.1)


@pytest.mark.parametrize("rule", sorted(certainties))
def test_a_rule_goes_on_where_the_certainty_is_at_most_its_bias(rule: str) -> None:
    decider = RuleDecider(DeciderConfig(rule=rule))
    logits = torch.tensor([[9.0, 0.0, 0.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    sure = certainties[rule](logits.softmax(dim=1))
    nothing = torch.empty(3, 0)  # the features are not read
    assert (decider.margin(nothing, logits) >= 0).all(), "a new one lets every image pass"
    decider.bias.copy_(sure[1])
    torch.testing.assert_close(decider.margin(nothing, logits), sure[1] - sure)
    assert (decider.margin(nothing, logits) >= 0).tolist() == [False, True, True]
    assert (decider.learns, list(decider.parameters())) == (False, [])


def test_a_deep_classifier_is_three_convolutions_at_a_coarse_scale() -> None:
    """Counted by hand: 3x3 weights, at a half of the height and width, and at a quarter of them."""
    network = convert(build(spec_of("resnet20")), [Exit(at="layer1.1", width=64)]).eval()
    head = head_of(network)
    macs = 9 * (16 * 32 * 16 * 16 + 32 * 64 * 8 * 8 + 64 * 64 * 8 * 8) + 64 * 10
    norms = 2 * (32 * 16 * 16 + 64 * 8 * 8 + 64 * 8 * 8)  # counted as fvcore does, at two a value
    x = torch.randn(1, 16, 32, 32)
    assert count(head, (x,), head).flops == pytest.approx(macs + norms, abs=64 * 8 * 8)
    assert head(torch.randn(5, 16, 4, 4)).shape == (5, 10)


def test_the_rule_of_joined_networks_is_none_of_exits() -> None:
    with pytest.raises(ValueError, match="the rule idk is for cascades"):
        Exit(rule="idk")
