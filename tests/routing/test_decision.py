"""Decisions and layouts, by hand."""

from typing import Any

import pytest
import torch

from routekit.routing.certainty import LearnedCertainty, lead, measures
from routekit.routing.decision import Decision, Layout, RouteTrace, decided
from routekit.routing.router import JunctionShape, RouterConfig, build_bank

INF = float("inf")


def test_a_sink_that_lost_to_another_of_its_junction_has_no_margin() -> None:
    margins = torch.tensor([[0.3, 0.5, -1.0, -2.0], [0.5, 0.3, 2.0, -1.0], [-0.1, -0.2, 0.0, 0.0]])
    want = torch.tensor([[-INF, 0.5, -1.0, -2.0], [0.5, -INF, 2.0, -1.0], [-0.1, -0.2, 0.0, -INF]])
    assert torch.equal(decided(margins, 2), want)
    assert torch.equal(decided(margins, 1), margins)
    # Two junctions of other widths: each by itself.
    layout = Layout(sections=(0, 0, 0, 0), widths=(1, 3))
    want = torch.tensor([[0.3, 0.5, -1.0, -2.0], [0.5, -INF, 2.0, -1.0], [-0.1, -0.2, 0.0, -INF]])
    assert torch.equal(layout.decided(margins), want)
    assert layout.choose(margins).tolist() == [
        [True, True, False, False],
        [True, False, True, False],
        [False, False, True, False],
    ]


def test_every_path_is_there_for_all_images_in_turn() -> None:
    layout = Layout(sections=(0, 0, 1), stops=(1,), widths=(1, 1, 1), forks=True)
    assert layout.paths == 4
    assert layout.of_units == [0, 2]
    routes = layout.every_path(2)
    assert routes.dtype == torch.bool
    # The first sink is True; the first fork changes most slowly; all stops are passed.
    paths = [[True, True, True], [True, True, False], [False, True, True], [False, True, False]]
    assert routes.tolist() == [path for path in paths for _ in range(2)]
    assert Layout(sections=(0,), widths=(1,)).paths == 1


def test_what_lies_behind_a_stop_that_is_taken_is_not_met() -> None:
    layout = Layout(sections=(0, 0, 1, 1, 2), stops=(1, 3), widths=(1, 1, 1, 1, 1))
    routes = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [0, 1, 1, 0, 1]]).bool()
    assert layout.met(routes).tolist() == [[True] * 5, [True, True, False, False, False], [True] * 4 + [False]]
    assert layout.strike(routes).int().tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert layout.is_stop == (False, True, False, True, False)
    assert layout.partings == [False, False]
    shares = torch.tensor([[0.5, 0.2, 1.0, 0.5, 1.0]])
    torch.testing.assert_close(layout.reach(shares), torch.tensor([[1.0, 0.2, 0.1]]))


def test_positions_count_by_their_share() -> None:
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    positions = torch.tensor([[0.1, 0.0, -0.1, -0.2], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]).view(3, 2, 2)
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    decision = Decision(logits, weights, logits.argmax(dim=1), positions)
    assert decision.computed.flatten().tolist() == [0.5, 1.0, 0.0]
    stop = Decision(logits, weights.flip(1), 1 - logits.argmax(dim=1))
    layout = Layout(sections=(0, 0, 1), stops=(1,), widths=(1, 1, 1))
    trace = RouteTrace(logits, (decision, stop, decision), layout)
    # The first two images stop before the second junction.
    assert trace.computed.tolist() == [[0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert trace.routes.int().tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_neighbours_of_positions_count_where_a_convolution_reads_them() -> None:
    # Of 8 x 8 positions, a square of 4 x 4 goes on. Half of the work is also done on its rim: 6 x 6.
    positions = torch.full((1, 8, 8), -1.0)
    positions[:, 2:6, 2:6] = 0.5
    one = torch.tensor([[1.0, 0.0]])
    decision = Decision(one, one, one.argmax(dim=1), positions, halo=0.5)
    assert decision.computed.tolist() == [[(36 + 16) / 2 / 64]]  # 40.6%, and not 25%


def test_how_sure_an_answer_is_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    entropy = 1.5 * torch.tensor(2.0).log() / torch.tensor(3.0).log()
    want = torch.tensor([[0.5, 0.25, 1 - float(entropy)], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(measures(probabilities), want)
    rule = LearnedCertainty()
    torch.testing.assert_close(rule(probabilities), torch.sigmoid(want.sum(dim=1)))
    with torch.no_grad():
        rule.weight.copy_(torch.tensor([1.0, -2.0, 3.0]))
        rule.bias.fill_(0.5)
    torch.testing.assert_close(rule(probabilities), torch.sigmoid(want @ torch.tensor([1.0, -2.0, 3.0]) + 0.5))


@pytest.mark.parametrize(("kind", "removed"), [("fc", True), ("cnn", True), ("rnn", False), ("policy", True)])
def test_a_router_is_removed_with_its_bias_where_no_other_needs_it(kind: str, removed: bool) -> None:
    shapes = [JunctionShape(4, 0, sinks=3) for _ in range(3)]
    bank = build_bank(shapes, RouterConfig(kind=kind))
    bank.bias.copy_(torch.arange(6.0))
    lists = [each for each in bank.children() if isinstance(each, torch.nn.ModuleList) and len(each) == 3]
    kept = [(each, each[0], each[2]) for each in lists]
    assert bank.forget(1) == removed
    if not removed:
        assert torch.equal(bank.bias, torch.arange(6.0))
        return
    assert bank.bias.tolist() == [0.0, 1.0, 4.0, 5.0]
    assert len(bank) == 2
    assert kept
    for each, first, third in kept:  # the third router is the second one now
        assert [*each] == [first, third]


def test_a_convolutional_router_reads_no_more_than_what_is_positive() -> None:
    bank = build_bank([JunctionShape(1, 0)], RouterConfig(kind="cnn")).eval()
    (conv,), (head,) = (
        [each for each in bank.modules() if isinstance(each, kind)] for kind in (torch.nn.Conv2d, torch.nn.Linear)
    )
    torch.nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 1.0
    torch.nn.init.ones_(head.weight)
    torch.nn.init.zeros_(head.bias)
    features = torch.tensor([-3.0, 1.0, 5.0, -1.0]).view(1, 1, 2, 2)  # of which a stride of 2 reads the first
    logits, _ = bank(0, torch.cat([features, -features]), bank.begin(features))
    torch.testing.assert_close(logits[:, 0], torch.tensor([0.0, 3.0]), rtol=1e-4, atol=1e-4)


def test_a_policy_network_sees_large_images_averaged() -> None:
    torch.manual_seed(0)
    bank = build_bank([JunctionShape(4, 0), JunctionShape(4, 0)], RouterConfig(kind="policy")).eval()
    for head in bank.heads:
        torch.nn.init.normal_(head.weight)
    small = torch.randn(2, 3, 32, 32)
    scores = bank.policy(small)
    assert scores.shape == (2, 2, 2)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(bank.policy(large), scores)
    # It is a small residual network: written out.
    stem, x = bank.stem, small
    assert [type(each).__name__ for each in stem] == ["Conv2d", "BatchNorm2d", "ReLU"]
    x = stem(x)
    for block in bank.blocks:
        inner = torch.relu(block.bn1(block.conv1(x)))
        x = torch.relu(block.bn2(block.conv2(inner)) + block.shortcut(x))
    means = x.mean(dim=(2, 3))
    want = torch.stack([head(means) for head in bank.heads], dim=1)
    torch.testing.assert_close(scores, want)


def test_how_far_the_likeliest_class_is_ahead() -> None:
    assert lead(torch.tensor([[3.0, 1.0, 2.5], [0.0, 0.0, -1.0]])).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("kind", ["fc", "cnn", "rnn", "policy"])
def test_banks_are_built_as_their_config_says(kind: str) -> None:
    shapes = [JunctionShape(4, 0), JunctionShape(4, 0), JunctionShape(6, 1)]
    for normalize in (True, False):
        config = RouterConfig(kind=kind, hidden=5, normalize=normalize, open_logit=3.0, detach=False)
        bank = build_bank(shapes, config)
        assert bank.config is config
        assert (len(bank), bank.width, bank.price) == (3, 1, None)
        norms = [each for each in bank.modules() if isinstance(each, torch.nn.BatchNorm1d)]
        assert all(not norm.affine for norm in norms)
        if kind in ("fc", "rnn"):
            assert bool(norms) == normalize
        convolutions = [each for each in bank.modules() if isinstance(each, torch.nn.Conv2d)]
        assert all(each.bias is None for each in convolutions)
        assert bool(convolutions) == (kind in ("cnn", "policy"))
        # A new bank runs every unit, by the margin.
        state = bank.begin(torch.rand(2, 3, 8, 8))
        for index, shape in enumerate(shapes):
            logits, state = bank(index, torch.rand(2, shape.channels, 8, 8), state)
            torch.testing.assert_close(logits, torch.tensor([[1.5, -1.5]] * 2))
    if kind != "policy":  # which gets no price
        assert build_bank(shapes, RouterConfig(kind=kind), priced=True).price is not None


def test_a_policy_network_of_residual_blocks_halves_the_image_twice() -> None:
    bank: Any = build_bank([JunctionShape(4, 0)], RouterConfig(kind="policy"))
    x = torch.rand(2, 3, 32, 32)
    seen: list[tuple[int, ...]] = []
    for each in bank.modules():
        if isinstance(each, torch.nn.Conv2d):
            each.register_forward_hook(lambda module, given, made: seen.append(tuple(made.shape[1:])))
    bank.policy(x)
    sizes = [shape[1] for shape in seen]
    assert sizes == sorted(sizes, reverse=True)
    assert {shape[1:] for shape in seen} == {(32, 32), (16, 16), (8, 8)}
