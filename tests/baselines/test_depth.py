import copy

import pytest
import torch

from routekit.backbones.load import build, spec_of
from routekit.baselines.depth import distributed_k, first_k, orders, random_k, reach_of_depth, static_depth
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.junctions.convert import convert
from tests.toy import ToyNet, toy_noise, toy_view

STAGES = [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_orders_by_hand() -> None:
    assert first_k(STAGES, 0) == list(range(9))
    assert distributed_k(STAGES, 0) == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert sorted(random_k(STAGES, 0)) == list(range(9))
    assert random_k(STAGES, 0) == random_k(STAGES, 0) != random_k(STAGES, 1)


def test_distributed_k_is_even_where_stages_differ_in_depth() -> None:
    # ResNet-50's 3, 4, 6, 3: after 8 of 16 units, about half of each stage.
    stages = [0] * 3 + [1] * 4 + [2] * 6 + [3] * 3
    taken = [stages[index] for index in distributed_k(stages, 0)[:8]]
    assert [taken.count(stage) for stage in range(4)] == [2, 2, 3, 1] or [taken.count(s) for s in range(4)] == [
        1,
        2,
        3,
        2,
    ]


def toy_cost(kept: set[int]) -> int:
    """What the toy costs without routers, of whose units these are kept."""
    f = ToyNet.FLOPS
    run, skip = [f["unit"], f["unit"], f["down"], f["last"]], [0, 0, f["down shortcut"], 0]
    return f["stem"] + f["head"] + sum(run[index] if index in kept else skip[index] for index in range(4))


@pytest.mark.parametrize("method", sorted(orders))
@pytest.mark.parametrize("share", [0.4, 0.6, 1.0])
def test_no_prefix_of_the_order_is_nearer_to_the_target(method: str, share: float) -> None:
    view = toy_view()
    target = share * toy_cost({0, 1, 2, 3})
    left = static_depth(method, view, target, seed=1)
    network = convert(left)
    assert network.is_static
    costs = CostTable.measure(network)
    kept = {index for index, unit in enumerate(left.units) if not unit.dropped}
    assert costs.dense == costs.minimum == costs.maximum == toy_cost(kept)
    order = orders[method]([unit.stage for unit in view.units], 1)
    assert kept == set(order[: len(kept)])
    for k in range(5):
        assert abs(costs.dense - target) <= abs(toy_cost(set(order[:k])) - target)


def test_what_is_left_computes_what_the_network_does_with_these_units_skipped() -> None:
    view = toy_view()
    before = copy.deepcopy(view.model.state_dict())
    left = static_depth("firstk", view, toy_cost({0, 1}), seed=0)
    assert [unit.name for unit in left.units if unit.dropped] == ["body.2", "body.3"]
    x = toy_noise(5)
    with torch.no_grad():
        features = view.stem(x)
        for index, unit in enumerate(view.units):
            features = unit.run(features) if index < 2 else unit.skip(features)
        assert torch.equal(convert(left).eval()(x).logits, view.head(features))
    # The network itself is left as it is.
    assert not any(unit.dropped for unit in view.units)
    assert all(torch.equal(tensor, before[name]) for name, tensor in view.model.state_dict().items())
    # What no image runs is gone.
    assert sum(p.numel() for p in left.model.parameters()) < sum(p.numel() for p in view.model.parameters())


@pytest.mark.parametrize("name", ["toy", "resnet20"])
def test_the_reach_is_from_no_unit_to_all(name: str) -> None:
    view = toy_view() if name == "toy" else build(spec_of(name, num_classes=10))
    reach = reach_of_depth(view)
    assert reach.most == reach.whole == CostTable.measure(convert(view)).dense
    assert reach.least == CostTable.measure(convert(static_depth("firstk", view, 0.0, seed=0))).dense
    if name == "toy":
        assert (reach.least, reach.most) == (toy_cost(set()), toy_cost({0, 1, 2, 3}))


def test_an_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean firstk"):
        static_depth("frstk", toy_view(), 1e4, 0)
