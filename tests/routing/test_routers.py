from dataclasses import replace

import pytest
import torch

from routekit.cost.model import CostModel
from routekit.network.convert import convert, junction_shapes
from routekit.routing.router import FixedRoute, JunctionShape, RouterConfig, banks, build_bank
from routekit.routing.stacked import StackedRouters
from tests.toy import toy_view

SHAPES = [JunctionShape(4, 0), JunctionShape(4, 0), JunctionShape(4, 1), JunctionShape(8, 1)]


def test_junction_shapes_are_what_the_routers_will_see() -> None:
    assert junction_shapes(convert(toy_view()).view) == SHAPES


@pytest.mark.parametrize("kind", sorted(banks))
@pytest.mark.parametrize("sinks", [2, 4])
def test_a_new_bank_runs_every_unit_of_any_image(kind: str, sinks: int) -> None:
    shapes = [replace(shape, sinks=sinks) for shape in SHAPES]
    bank = build_bank(shapes, RouterConfig(kind=kind)).eval()
    state = None
    for index, shape in enumerate(shapes):
        features = 1e3 * torch.randn(5, shape.channels, 6, 6, generator=torch.Generator().manual_seed(index))
        logits, state = bank(index, features, state)
        assert logits.shape == (5, sinks)
        assert (logits[:, :1] > logits[:, 1:]).all()


@pytest.mark.parametrize("kind", sorted(banks))
def test_every_parameter_of_a_bank_gets_a_gradient(kind: str) -> None:
    bank = build_bank(SHAPES, RouterConfig(kind=kind, hidden=8))
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    state, total = None, torch.zeros(())
    for index, shape in enumerate(SHAPES):
        features = torch.randn(5, shape.channels, 6, 6, generator=torch.Generator().manual_seed(index))
        logits, state = bank(index, features, state)
        total = total + logits[:, 0].square().sum()
    total.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in bank.parameters())


def test_the_rnn_bank_carries_a_state_and_the_others_do_not() -> None:
    features = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    for kind in banks:
        bank = build_bank(SHAPES, RouterConfig(kind=kind)).eval()
        _, state = bank(0, features, None)
        assert (state is not None) == (kind == "rnn")


def test_normalised_inputs_ignore_a_constant_that_all_images_share() -> None:
    bank = build_bank(SHAPES, RouterConfig(normalize=True))
    torch.nn.init.normal_(bank.routers[0][-1].weight, generator=torch.Generator().manual_seed(0))
    features = torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    near, _ = bank(0, features, None)
    far, _ = bank(0, features + 100, None)
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)


def test_the_offset_moves_every_decision() -> None:
    bank = build_bank([replace(shape, sinks=3) for shape in SHAPES], RouterConfig(open_logit=2.0)).eval()
    features = torch.zeros(2, 4, 6, 6)
    bank.offset.copy_(torch.tensor([-2.5, 0.0, -1.0, 0.5, -2.5, -0.5, 0.0, 0.0]))
    margins, _ = bank.survey(range(3), features)
    assert margins[0].tolist() == [-0.5, 0.0, 1.0, 0.5, -0.5, -0.5]


def test_a_fixed_route_is_the_same_for_every_image() -> None:
    bank = FixedRoute([True, False])
    assert bank(0, torch.randn(3, 4, 2, 2), None)[0].argmax(1).tolist() == [0, 0, 0]
    assert bank(1, torch.randn(3, 4, 2, 2), None)[0].argmax(1).tolist() == [1, 1, 1]


def test_router_costs_by_hand() -> None:
    # fc with hidden 16 on 4 channels at 8x8: pool 256, once for all that see the same features, and for each router
    # batch norm without affine 4, linear 64, linear 32.
    costs = CostModel.measure(convert(toy_view(), RouterConfig(kind="fc", hidden=16)))
    assert costs.ask.tolist() == [556.0, 456.0, 356.0, 8 * 16 + 8 + 8 * 16 + 32]
    assert costs.fresh.tolist() == [True, False, False, True]
    # cnn: a 3x3 convolution at half the size, 4*4*4*4*9 = 2,304; its batch norm 2*4*16 = 128; pool 64; linear 8.
    costs = CostModel.measure(convert(toy_view(), RouterConfig(kind="cnn")))
    assert costs.ask[0] == 2304 + 128 + 64 + 8
    assert costs.fresh.all()


def test_the_papers_router_costs_under_one_percent_of_its_unit() -> None:
    from routekit.backbones.load import build, spec_of

    costs = CostModel.measure(convert(build(spec_of("resnet56"))))
    assert (costs.ask / costs.run).max() < 0.01


@pytest.mark.parametrize("kind", sorted(banks))
@pytest.mark.parametrize("sinks", [2, 3])
def test_a_survey_is_what_the_junctions_say_one_by_one(kind: str, sinks: int) -> None:
    bank = build_bank([JunctionShape(4, 0, sinks)] * 3, RouterConfig(kind=kind, hidden=8)).eval()
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    bank.offset.copy_(torch.linspace(-1, 2, 3 * (sinks - 1)))
    features = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    margins, _ = bank.survey(range(3), features)
    state = None
    for index in range(3):
        logits, state = bank(index, features, state)
        own = bank.columns(range(index, index + 1))
        torch.testing.assert_close(margins[:, own], logits[:, :-1] - logits[:, -1:] + bank.offset[own])


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(banks))
def test_routers_that_are_told_the_price(kind: str) -> None:
    bank = build_bank(SHAPES[:2], RouterConfig(kind=kind, hidden=8), dial=True).eval()
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    features, prices = torch.randn(3, 4, 6, 6), torch.tensor([0.1, 0.5, 1.0])
    together = bank(0, features, None, prices)[0]
    for row, price in enumerate(prices):
        bank.price.fill_(price)
        torch.testing.assert_close(bank(0, features[row : row + 1])[0][0], together[row])
    assert not torch.allclose(bank(0, features[:1])[0][0], together[0])
    if kind == "fc":
        stacked = StackedRouters(bank, [range(2)])
        torch.testing.assert_close(stacked.survey(range(2), features)[0], bank.survey(range(2), features)[0])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("sinks", [2, 3])
def test_stacked_routers_prefer_what_their_bank_prefers(normalize: bool, sinks: int) -> None:
    shapes = [JunctionShape(4, 0, sinks)] * 3 + [JunctionShape(8, 1, sinks)] * 2
    bank = build_bank(shapes, RouterConfig(hidden=8, normalize=normalize)).eval().double()
    for tensor in bank.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(tensor))))
    groups = [range(3), range(3, 5)]
    stacked = StackedRouters(bank, groups).double()
    for group in groups:
        features = torch.randn(5, shapes[group.start].channels, 6, 6, dtype=torch.float64)
        for start in group:
            rest = range(start, group.stop)
            torch.testing.assert_close(stacked.survey(rest, features)[0], bank.survey(rest, features)[0])
            logits, _ = stacked(start, features)
            own = stacked.columns(range(start, start + 1))
            margins = logits[:, :-1] + stacked.offset[own]
            torch.testing.assert_close(margins, bank.survey(rest, features)[0][:, : sinks - 1])


def test_stacked_routers_move_between_precisions() -> None:
    bank = build_bank([JunctionShape(4, 0)] * 2, RouterConfig(hidden=8)).eval()
    stacked = StackedRouters(bank, [range(2)])
    features = torch.ones(1, 4, 6, 6)
    before = stacked.survey(range(2), features)[0]
    assert stacked.double().survey(range(2), features.double())[0].dtype == torch.float64
    torch.testing.assert_close(stacked.float().survey(range(2), features)[0], before)
