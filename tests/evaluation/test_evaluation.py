import math

import pytest
import torch

import routekit.evaluation.calibrate
from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.evaluation.routes import route_statistics
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.routing.router import RouterConfig
from tests.toy import open_to_images, toy_exits, toy_images, toy_view


def network_with_routes():  # type: ignore[no-untyped-def]
    network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8)).eval()
    open_to_images(network)
    return network, CostTable.measure(network)


def test_route_statistics_by_hand() -> None:
    routes = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    statistics = route_statistics(routes, torch.tensor([0, 0, 1, 1]))
    assert statistics.unique == 3
    assert statistics.entropy == pytest.approx(1.5)  # probabilities 1/2, 1/4, 1/4
    assert statistics.run_rate == (0.75, 0.5, 0.0)
    assert not statistics.collapsed


def test_a_static_network_has_collapsed() -> None:
    statistics = route_statistics(torch.ones(8, 3, dtype=torch.bool), torch.arange(8) % 2)
    assert (statistics.unique, statistics.entropy, statistics.collapsed) == (1, 0.0, True)


def test_routes_that_tell_the_class_carry_its_information() -> None:
    labels = torch.arange(4000) % 4
    telling = torch.stack([labels >= 2, labels % 2 == 1], dim=1)
    assert route_statistics(telling, labels).class_information == pytest.approx(2.0, abs=0.01)
    noise = torch.rand(4000, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    assert route_statistics(noise, labels).class_information < 0.1


def test_accuracy_and_cost_are_what_single_images_give() -> None:
    network, costs = network_with_routes()
    images = toy_images(30)
    measured = evaluate(network, images, costs, batch_size=7)
    for index in range(30):
        one = evaluate(network, images.subset(torch.tensor([index])), costs)
        assert bool(one.correct[0]) == bool(measured.correct[index])
        assert torch.equal(one.routes[0], measured.routes[index])
        assert one.cost == costs.of_routes(measured.routes[index : index + 1]).item()
    assert measured.cost_quantiles()["mean"] == pytest.approx(measured.costs.mean().item())
    assert measured.statistics.unique > 1


def test_what_chance_does_to_a_mean_cost_by_hand() -> None:
    costs = torch.tensor([1.0, 1.0, 1.0, 5.0])  # variance 3
    answers = torch.zeros(4, dtype=torch.bool)
    measured = Evaluation(answers, costs, answers[:, None], costs[:, None], torch.zeros(4))
    assert measured.chance(12) == pytest.approx(1.0)  # 3/4 + 3/12
    static = Evaluation(answers, torch.ones(4), answers[:, None], costs[:, None], torch.zeros(4))
    assert static.chance(12) == 0


def test_forced_routes_are_taken() -> None:
    network, costs = network_with_routes()
    routes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(evaluate(network, toy_images(20), costs, routes=routes, batch_size=6).routes, routes)


def test_evaluation_keeps_the_mode_and_the_statistics() -> None:
    network, costs = network_with_routes()
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate(network, toy_images(12), costs)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_dense_network_scores_as_itself() -> None:
    view, images = toy_view(), toy_images(30)
    network = convert(view)
    with torch.no_grad():
        answers = view.model(normalize(images.images, view.spec.mean, view.spec.std)).argmax(dim=1)
    measured = evaluate(network, images, CostTable.measure(network))
    assert torch.equal(measured.correct, answers == images.labels)
    assert 0 < measured.accuracy < 1
    assert measured.routes.shape == (30, 0)
    assert measured.statistics.unique == 1


@pytest.mark.parametrize("share", [0.45, 0.6, 0.8])
def test_calibration_lands_on_the_target(share: float) -> None:
    network, costs = network_with_routes()
    images = toy_images(400, seed=5)
    target = share * costs.dense
    realized = calibrate(network, images, costs, target)
    assert realized == evaluate(network, images, costs).cost
    found = network.routers.bias.clone()
    grid = []
    for step in range(-40, 41):
        network.routers.bias.copy_(found + step / 10)
        grid.append(abs(evaluate(network, images, costs).cost - target))
    # Four units and routes that many images share: no bias may be near; none may be clearly nearer.
    assert abs(realized - target) <= min(grid) + 0.01 * target


@pytest.mark.parametrize("rule", ["learned", "confidence"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_exits_alone_are_set_in_one_pass(rule: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    network = toy_exits(exits=Exit(at="body.0,body.2", head="linear", hidden=8, rule=rule), skips=False)
    costs, images, passes = CostTable.measure(network), toy_images(300, seed=5), []

    def counted(*arguments: object, **options: object) -> Evaluation:
        passes.append(options)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(routekit.evaluation.calibrate, "evaluate", counted)
    realized = calibrate(network, images, costs, share * costs.dense)
    assert len(passes) == 1
    assert realized == pytest.approx(evaluate(network, images, costs).cost)
    # One image more or less goes on past one exit.
    assert 0 <= share * costs.dense - realized <= costs.maximum / 300 + 1e-6


def test_calibration_of_a_static_router_reports_what_it_got() -> None:
    network = convert(toy_view(), [Skip()]).eval()  # fresh routers: all images share one route
    costs = CostTable.measure(network)
    realized = calibrate(network, toy_images(20), costs, 0.6 * costs.dense)
    assert any(math.isclose(realized, cost) for cost in (costs.minimum, costs.maximum))
