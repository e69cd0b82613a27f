from dataclasses import replace

import pytest
import torch

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.routing.router import (
    FullyConnectedRouters,
    JunctionShape,
    RecurrentRouters,
    RouterConfig,
    banks,
    build_bank,
)
from routekit.routing.stacked import StackedRouters
from tests.toy import SINKS, ToyNet, small_view, toy_view

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(9))
SHAPES = [JunctionShape(4, 0), JunctionShape(4, 0), JunctionShape(4, 1), JunctionShape(8, 1)]


def test_routers_are_built_for_what_they_will_see() -> None:
    bank = convert(toy_view(), [Skip()], routers=RouterConfig(kind="rnn")).routers
    assert isinstance(bank, RecurrentRouters)
    assert bank.keys == [f"{shape.stage}_{shape.channels}" for shape in SHAPES]
    bank = convert(toy_view(), [Skip()]).routers
    assert isinstance(bank, FullyConnectedRouters)
    assert [router[1].in_features for router in bank.routers] == [shape.channels for shape in SHAPES]
    assert (len(bank), bank.width) == (4, 1)
    assert convert(small_view(), SINKS["all"]).routers.width == 4  # in full, a copy, two narrow ones; else skipped


@pytest.mark.parametrize("kind", sorted(banks))
@pytest.mark.parametrize("sinks", [2, 4])
def test_a_new_bank_runs_every_unit_of_any_image(kind: str, sinks: int) -> None:
    shapes = [replace(shape, sinks=sinks) for shape in SHAPES]
    bank = build_bank(shapes, RouterConfig(kind=kind)).eval()
    state = bank.begin(IMAGES)
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
    state, total = bank.begin(IMAGES), torch.zeros(())
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
        begun = bank.begin(IMAGES[:3])
        _, state = bank(0, features, begun)
        assert (begun is not None, state is not begun) == (kind == "policy", kind == "rnn")


def test_normalised_inputs_ignore_a_constant_that_all_images_share() -> None:
    bank = build_bank(SHAPES, RouterConfig(normalize=True))
    torch.nn.init.normal_(bank.routers[0][-1].weight, generator=torch.Generator().manual_seed(0))
    features = torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    near, _ = bank(0, features, None)
    far, _ = bank(0, features + 100, None)
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-3)


def test_the_bias_moves_every_decision() -> None:
    bank = build_bank([replace(shape, sinks=3) for shape in SHAPES], RouterConfig(open_logit=2.0)).eval()
    features = torch.zeros(2, 4, 6, 6)
    bank.bias.copy_(torch.tensor([-2.5, 0.0, -1.0, 0.5, -2.5, -0.5, 0.0, 0.0]))
    margins, _ = bank.survey(range(3), features)
    assert margins[0].tolist() == [-0.5, 0.0, 1.0, 0.5, -0.5, -0.5]


def test_router_costs_by_hand() -> None:
    f = ToyNet.FLOPS
    whole = f["stem"] + f["head"] + f["down shortcut"]
    runs = [f["unit"], f["unit"], f["down"] - f["down shortcut"], f["last"]]
    # fc with hidden 16 on 4 channels at 8x8: pool 256, once for all that see the same features, and for each router
    # batch norm without affine 4, linear 64, linear 32.
    costs = CostTable.measure(convert(toy_view(), [Skip()], routers=RouterConfig(kind="fc", hidden=16)))
    asks = [556.0, 456.0, 356.0, 8 * 16 + 8 + 8 * 16 + 32]
    # Three see the same features until one of them has run.
    assert costs.base.tolist() == [whole + asks[0] + asks[3]]
    assert costs.extra.tolist() == [runs[0] + asks[1], runs[1] + asks[2], *runs[2:]]
    # cnn: a 3x3 convolution at half the size, 4*4*4*4*9 = 2,304; its batch norm 2*4*16 = 128; pool 64; linear 8. The
    # last one has twice the channels at a quarter of the pixels: as many, 64, 32, 16. Each is asked in any case.
    costs = CostTable.measure(convert(toy_view(), [Skip()], routers=RouterConfig(kind="cnn")))
    assert costs.base.tolist() == [whole + 3 * (2304 + 128 + 64 + 8) + 2304 + 64 + 32 + 16]
    assert costs.extra.tolist() == runs


def test_the_papers_router_costs_under_one_percent_of_its_unit() -> None:
    network = convert(build(spec_of("resnet56")), [Skip()])
    costs = CostTable.measure(network)
    unit = torch.tensor([part.cost for part in costs.parts if part.skippable])
    # Whatever the unit that has run, this is what asking the routers behind it again costs.
    assert ((costs.extra - unit) / unit).max() < 0.01
    ends = sum(part.cost for part in costs.parts if not part.skippable)
    groups = [group for step in network.steps if hasattr(step, "groups") for group in step.groups]
    assert float(costs.base[0] - ends) / len(groups) < 0.01 * float(unit.min())


@pytest.mark.parametrize("kind", sorted(banks))
@pytest.mark.parametrize("sinks", [2, 3])
def test_a_survey_is_what_the_junctions_say_one_by_one(kind: str, sinks: int) -> None:
    bank = build_bank([JunctionShape(4, 0, sinks)] * 3, RouterConfig(kind=kind, hidden=8)).eval()
    for parameter in bank.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    bank.bias.copy_(torch.linspace(-1, 2, 3 * (sinks - 1)))
    features = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    state = bank.begin(IMAGES)
    margins, _ = bank.survey(range(3), features, state)
    for index in range(3):
        logits, state = bank(index, features, state)
        own = bank.columns(range(index, index + 1))
        torch.testing.assert_close(margins[:, own], logits[:, :-1] - logits[:, -1:] + bank.bias[own])


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted({*banks} - {"policy"}))
def test_routers_that_get_the_price(kind: str) -> None:
    bank = build_bank(SHAPES[:2], RouterConfig(kind=kind, hidden=8), priced=True).eval()
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
            margins = logits[:, :-1] + stacked.bias[own]
            torch.testing.assert_close(margins, bank.survey(rest, features)[0][:, : sinks - 1])


def test_stacked_routers_move_between_precisions() -> None:
    bank = build_bank([JunctionShape(4, 0)] * 2, RouterConfig(hidden=8)).eval()
    stacked = StackedRouters(bank, [range(2)])
    features = torch.ones(1, 4, 6, 6)
    before = stacked.survey(range(2), features)[0]
    assert stacked.double().survey(range(2), features.double())[0].dtype == torch.float64
    torch.testing.assert_close(stacked.float().survey(range(2), features)[0], before)


def test_a_policy_network_gets_no_price() -> None:
    with pytest.raises(InputError, match="routers of kind policy get no price: another kind"):
        build_bank(SHAPES, RouterConfig(kind="policy"), priced=True)
