"""What decides at a stop, and the classifiers that it decides about."""

import pytest
import torch

from routekit.backbones.load import build, spec_of
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.macs import count
from routekit.network.deciders import DeciderConfig, RuleDecider
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify
from routekit.routing.certainty import certainties, confidence, lead, negentropy
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
