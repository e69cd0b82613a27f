"""What an exit consists of: its classifier, and what its router is told."""

import pytest
import torch

from routekit.backbones.load import build, spec_of
from routekit.macs import count
from routekit.network.convert import convert
from routekit.network.exits import ExitConfig
from routekit.routing.certainty import lead, negentropy
from routekit.routing.router import pool
from tests.toy import toy_exits
from tests.toy import toy_noise as images


def test_what_a_router_is_told_of_an_answer() -> None:
    """The lead grows where probabilities have long been 1; both are of the answer alone, whatever the labels are."""
    logits = torch.tensor([[8.0, 2.0, -1.0], [30.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert lead(logits).tolist() == [6.0, 30.0, 0.0]
    network = toy_exits(exits=ExitConfig(at="body.0", head="linear", features=0.1), skips=False).eval()
    (leaving,) = network.exits
    told = []
    leaving.router.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0]))
    x = network.view.stem(images(4))
    answer = leaving(x)[0].detach()
    features = (pool(x) - leaving.normalize.running_mean) * (leaving.normalize.running_var + 1e-5).rsqrt()
    torch.testing.assert_close(told[0][:, :-2], 0.1 * features)
    torch.testing.assert_close(told[0][:, -2], lead(answer) / 3)
    torch.testing.assert_close(told[0][:, -1], negentropy(answer.softmax(dim=1)))


def test_a_folded_exit_decides_the_same() -> None:
    network = toy_exits(exits=ExitConfig(at="body.0", head="deep", width=8, features=0.1), skips=False)
    (leaving,) = network.exits
    torch.manual_seed(0)
    torch.nn.init.normal_(leaving.router[2].weight)
    for _ in range(5):
        network.train()(images(16))  # statistics that are not those of a new batch norm
    x = network.eval().view.stem(images(8))
    with torch.no_grad():
        before = leaving(x)[1]
        leaving.fold()
        after = leaving(x)[1]
    torch.testing.assert_close(before, after)
    assert (before[:, 0] - before[:, 1]).std() > 1e-3


def test_a_deep_classifier_is_three_convolutions_at_a_coarse_scale() -> None:
    """Counted by hand: 3x3 weights, at a half of the height and width, and at a quarter of them."""
    network = convert(build(spec_of("resnet20")), exits=[ExitConfig(at="layer1.1", width=64)]).eval()
    (leaving,) = network.exits
    head = leaving.head
    macs = 9 * (16 * 32 * 16 * 16 + 32 * 64 * 8 * 8 + 64 * 64 * 8 * 8) + 64 * 10
    norms = 2 * (32 * 16 * 16 + 64 * 8 * 8 + 64 * 8 * 8)  # counted as fvcore does, at two a value
    x = torch.randn(1, 16, 32, 32)
    assert count(head, (x,), head).flops == pytest.approx(macs + norms, abs=64 * 8 * 8)
    assert head(torch.randn(5, 16, 4, 4)).shape == (5, 10)
