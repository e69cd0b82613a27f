import pytest
import torch

from routekit.baselines.depth import distributed_k, first_k, orders, random_k, static_route
from routekit.cost.model import CostModel
from routekit.errors import InputError
from routekit.network.convert import convert, dense
from tests.toy import toy_view

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


@pytest.mark.parametrize("method", sorted(orders))
@pytest.mark.parametrize("share", [0.4, 0.6, 1.0])
def test_no_prefix_of_the_order_is_nearer_to_the_target(method: str, share: float) -> None:
    view = toy_view()
    costs = CostModel.measure(dense(view))
    target = share * costs.dense
    route = static_route(method, view, costs, target, seed=1)
    gap = abs(float(costs.of_routes(torch.tensor([route]))[0]) - target)
    order = orders[method]([unit.stage for unit in view.units], 1)
    for k in range(5):
        other = torch.zeros(1, 4, dtype=torch.bool)
        other[0, order[:k]] = True
        assert gap <= abs(float(costs.of_routes(other)[0]) - target)


def test_a_static_route_is_not_priced_with_routers() -> None:
    view = toy_view()
    with pytest.raises(InputError, match="without routers"):
        static_route("firstk", view, CostModel.measure(convert(view)), 1e4, 0)


def test_an_unknown_method_suggests_the_nearest() -> None:
    view = toy_view()
    with pytest.raises(InputError, match="did you mean firstk"):
        static_route("frstk", view, CostModel.measure(dense(view)), 1e4, 0)
