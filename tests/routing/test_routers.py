import pytest
import torch

from routekit.cost.model import CostModel
from routekit.network.convert import convert, junction_shapes
from routekit.routing.router import FixedRoute, JunctionShape, RouterConfig, banks, build_bank
from tests.toy import toy_view

SHAPES = [JunctionShape(4, 0), JunctionShape(4, 0), JunctionShape(4, 1), JunctionShape(8, 1)]


def test_junction_shapes_are_what_the_routers_will_see() -> None:
    assert junction_shapes(toy_view()) == SHAPES


@pytest.mark.parametrize("kind", sorted(banks))
def test_a_new_bank_runs_every_unit_of_any_image(kind: str) -> None:
    bank = build_bank(SHAPES, RouterConfig(kind=kind)).eval()
    state = None
    for index, shape in enumerate(SHAPES):
        features = 1e3 * torch.randn(5, shape.channels, 6, 6, generator=torch.Generator().manual_seed(index))
        logits, state = bank(index, features, state)
        assert logits.shape == (5, 2)
        assert (logits[:, 0] > logits[:, 1]).all()


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
    bank = build_bank(SHAPES, RouterConfig(open_logit=2.0)).eval()
    features = torch.zeros(2, 4, 6, 6)
    bank.offset.fill_(-2.5)
    logits, _ = bank(0, features, None)
    assert (logits[:, 0] < logits[:, 1]).all()


def test_a_fixed_route_is_the_same_for_every_image() -> None:
    bank = FixedRoute([True, False])
    assert bank(0, torch.randn(3, 4, 2, 2), None)[0].argmax(1).tolist() == [0, 0, 0]
    assert bank(1, torch.randn(3, 4, 2, 2), None)[0].argmax(1).tolist() == [1, 1, 1]


def test_router_costs_by_hand() -> None:
    # fc with hidden 16 on 4 channels at 8x8: pool 256, batch norm without affine 4, linear 64, linear 32.
    costs = CostModel.measure(convert(toy_view(), RouterConfig(kind="fc", hidden=16)))
    assert costs.router.tolist() == [356.0, 356.0, 356.0, 8 * 16 + 8 + 8 * 16 + 32]
    # cnn: a 3x3 convolution at half the size, 4*4*4*4*9 = 2,304; its batch norm 2*4*16 = 128; pool 64; linear 8.
    costs = CostModel.measure(convert(toy_view(), RouterConfig(kind="cnn")))
    assert costs.router[0] == 2304 + 128 + 64 + 8


def test_the_papers_router_costs_under_one_percent_of_its_unit() -> None:
    from routekit.backbones.load import build, spec_of

    costs = CostModel.measure(convert(build(spec_of("resnet56"))))
    assert (costs.router / costs.run).max() < 0.01
