"""Trees: forks, behind which every path has units, exits and a classifier of its own."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.errors import ExportError, InputError
from routekit.execution.prepare import prepare
from routekit.formats.checkpoint import load, save_network
from routekit.formats.onnx.file import save_onnx
from routekit.formats.program import save_program
from routekit.junctions.again import Again
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.junctions.tree import Tree
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.network.paths import arrive, follow, mark, on_paths, unmark
from routekit.network.pricing import PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.objective.policy import PolicyConfig, exit_tree
from routekit.routing.decision import Layout
from routekit.routing.policy import expected_cost, optimistic, reach_of, shares, softly
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig
from routekit.training.throughput import adjust_for_throughput, layers_of, squares_of
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.toy import toy_noise, toy_view
from tests.training.runs import BENEFIT, trainer

EXITS = Exit(at="body.0,body.2", head="linear", hidden=8)
FORKS = Tree(forks="body.1, body.3", spread=0.3)


def tree(seed: int = 0) -> RoutedNetwork:
    """A toy of four paths, which part at its second and at its last unit, whose decisions differ between images."""
    network = convert(toy_view(seed), [EXITS, FORKS], routers=RouterConfig(hidden=8)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.routing_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / parameter.shape[-1] ** 0.5)
        margins = network(toy_noise(64, seed), execution=masked).margins
        network.set_bias(-margins.median(dim=0).values)
    return network


def along(network: RoutedNetwork, x: Tensor, turns: tuple[int, int]) -> Tensor:
    """What the path that takes these turns answers, unit by unit."""
    view = network.view
    first, second, third, last = (on_paths(unit) for unit in view.units)
    x = third[turns[0]](second[turns[0]](first[0](view.stem(x))))
    x = last[2 * turns[0] + turns[1]](x)
    return list(view.model.path_heads.each)[2 * turns[0] + turns[1]](x)


def on_every_path(network: RoutedNetwork, x: Tensor):
    return network(x.repeat(4, 1, 1, 1), routes=network.layout.every_path(len(x)), execution=masked)


@pytest.mark.parametrize(("name", "at", "count"), [("resnet20", "stages", 4), ("pyramid8", "columns.1,columns.3", 4)])
def test_a_tree_is_the_chain_until_it_is_trained(name: str, at: str, count: int) -> None:
    view = build(spec_of(name, num_classes=10))
    x = torch.randn(3, *view.spec.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = convert(view).eval()(x).logits
        costs = CostTable.measure(convert(view))
        network = convert(view, [Exit(at="stages", head="linear"), Tree(forks=at)]).eval()
        trace = network(x)
    assert torch.equal(trace.logits, want)
    assert trace.routes.all()
    assert network.layout.paths == count
    assert CostTable.measure(network).dense == costs.dense


@torch.no_grad()
def test_every_path_has_units_and_a_classifier_of_its_own() -> None:
    network, x = tree(), toy_noise(5)
    trace = on_every_path(network, x)
    for path, turns in enumerate(itertools.product((0, 1), repeat=2)):
        torch.testing.assert_close(trace.leaves[-1].view(4, 5, -1)[path], along(network, x, turns))
    said = trace.leaves[-1].view(4, 5, -1)
    assert all(not torch.allclose(a, b) for a, b in itertools.combinations(said, 2))
    # Before the paths part they are the same, at an exit between the forks there are two.
    first, between, _ = (leaf.view(4, 5, -1) for leaf in trace.leaves)
    torch.testing.assert_close(first, first[:1].expand(4, -1, -1))
    torch.testing.assert_close(between[0], between[1])
    assert not torch.allclose(between[0], between[2])
    # A route takes the first sink or the second.
    assert network.columns == ["past body.0", "first sink at body.1", "past body.2", "first sink at body.3"]
    assert network.layout.every_path(1).tolist() == [
        [True, first, True, second] for first, second in itertools.product((True, False), repeat=2)
    ]


@torch.no_grad()
def test_all_paths_cost_the_same() -> None:
    network = tree()
    costs = CostTable.measure(network)
    spent = costs.of_routes(network.layout.every_path(1))
    asking = costs.base.sum() - costs.dense
    assert spent.tolist() == [costs.dense + float(asking)] * 4
    assert costs.extra.tolist() == [0.0] * 4
    assert costs.cost_share[costs.layout.of_units].tolist() == [0.0, 0.0], "a budget speaks for no sink"
    routes = network(toy_noise(9)).routes
    assert network.units_run(routes).tolist() == [1 + 2 * int(row[0]) + int(row[0] & row[2]) for row in routes]


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 17), prepared=st.booleans())
def test_however_it_is_executed_decisions_are_the_same(seed: int, count: int, prepared: bool) -> None:
    executors_agree(tree(seed), toy_noise(count, seed), prepared=prepared)


def test_what_is_executed_is_what_is_charged_and_served() -> None:
    for seed in range(3):
        for network in (tree(seed), prepare(tree(seed))):
            executed_as_charged(network, toy_noise(7, seed))
    served_alike(tree(), toy_noise(16))
    # The network without decisions is the chain: it takes every first sink.
    network, x = tree(), toy_noise(4)
    with torch.no_grad():
        torch.testing.assert_close(network.without_routing()(x).logits, along(network, x, (0, 0)))


@torch.no_grad()
def test_features_carry_their_path() -> None:
    features, paths = torch.randn(4, 3, 2, 2), torch.tensor([2, 0, 3, 0])
    for dtype in (torch.float32, torch.bfloat16):
        own, found = unmark(mark(features.to(dtype), paths))
        assert torch.equal(own, features.to(dtype))
        assert torch.equal(found, paths)
    assert arrive(features, 1)[1].tolist() == [0, 0, 0, 0]
    sinks = [lambda x, path=path: x + path for path in range(4)]
    assert torch.equal(follow(sinks, paths, features), features + paths.view(4, 1, 1, 1))


def test_the_policy_is_over_the_whole_tree() -> None:
    network, x = tree(), toy_noise(6)
    costs, k_cpt = CostTable.measure(network), 1e-4
    trace = on_every_path(network, x)
    errors = [leaf.double().square().mean(dim=1) for leaf in trace.leaves]
    found = exit_tree(trace, costs, errors, k_cpt)
    choice = softly(0.7)

    def of(values: Tensor, turns: tuple[int, int]) -> Tensor:
        return values.view(4, 6, -1)[2 * turns[0] + turns[1]]

    # By enumeration: at each place where an image stops, on each path to there.
    expected, best = torch.zeros(6).double(), torch.full((6,), torch.inf).double()
    for turns in itertools.product((0, 1), repeat=2):
        forks = [choice(of(trace.at_units[fork].logits, turns))[:, turns[fork]] for fork in (0, 1)]
        goes = [choice(of(end.logits, turns))[:, 0] for end in trace.stops]
        for stop, chance in enumerate(
            ((1 - goes[0]), goes[0] * forks[0] * (1 - goes[1]), goes[0] * forks[0] * goes[1] * forks[1])
        ):
            cost = k_cpt * costs.base[: stop + 1].sum() + of(errors[stop], turns)[:, 0]
            shared = (4, 2, 1)[stop]  # so many paths come to this place together
            expected += chance * cost / shared
            best = torch.minimum(best, cost)
    torch.testing.assert_close(expected_cost(found, choice), expected)
    torch.testing.assert_close(optimistic(found), best)
    expected.sum().backward()  # the decisions of every path learn
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.routing_parameters())


def test_a_path_that_few_images_take_learns_as_fast() -> None:
    network = tree()
    trace = on_every_path(network, toy_noise(6))

    def chance(scores: Tensor) -> Tensor:
        return torch.tensor([0.25, 0.75]).expand(len(scores), 2)

    reach = reach_of(trace, chance)
    # All; past the first exit; on two paths; past the second exit on both; on four paths. Then who stops: at the first
    # exit, at the second on both paths, and at the end of four.
    quarter, rest = 0.25, 0.75
    two = [quarter * quarter, quarter * rest]
    four = [quarter * each * turn for each in two for turn in (quarter, rest)]
    want = [1.0, quarter, *two, *(quarter * each for each in two), *four, rest, *(rest * each for each in two), *four]
    torch.testing.assert_close(reach, torch.tensor(want).expand(6, -1))
    # What teaches all images alike is divided over the paths.
    answers = [1.0, *[0.5] * 2, *[0.25] * 4]
    assert shares(network.layout).tolist() == [1.0, 1.0, *[0.5] * 4, *[0.25] * 4, *answers]
    assert shares(Layout((0, 0, 0, 1, 1), stops=(2, 4), widths=(1,) * 5)).tolist() == [1.0] * 6
    found = layers_of(network)
    assert [bool(each.computing) for each in found] == [True, False, True, True, False, False, *[True] * 11]
    assert [bool(each.deciding) for each in found] == [*[True] * 6, *[False] * 11]
    every = [id(p) for each in found for p in (*each.computing, *each.deciding)]
    assert sorted(every) == sorted({id(p) for p in network.parameters()})
    assert squares_of(found).shape == (17,)
    network.zero_grad()
    trace.leaves[-1].square().mean().backward()
    weights = [part.computing[0] for part in (*found[6:10], *found[-4:])]
    before = [weight.grad.clone() for weight in weights]
    assert all(bool(grad.abs().sum() > 0) for grad in before)
    adjust_for_throughput(found, reach)
    for weight, old, share in zip(weights, before, four * 2, strict=True):
        torch.testing.assert_close(weight.grad, old / max(share, 1e-2))


def test_forks_learn_to_the_last_step() -> None:
    """As exits do: what they decide by learns, too."""
    torch.manual_seed(0)
    network = convert(toy_view(), [EXITS, FORKS], routers=RouterConfig(hidden=8))
    seen: list[Tensor] = []
    last = network.routers.routers[0][0][-1].weight
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 2, "hard": 0.7})
    trainer(network=network, config=config, on_step=lambda _: seen.append(last.detach().clone())).fit()
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_a_fork_has_the_router_of_an_exit() -> None:
    """As in the code of McGill and Perona: two hidden layers, batch norm before each ReLU; begun as in section 4.7."""
    torch.manual_seed(0)
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for detach in (False, True):
        exits = Exit(at="all", head="linear", hidden=16, layers=2, normalize=True, answer=False, features=None)
        forks = Tree(forks="columns.1", spread=1.0, layers=2, normalize=True)
        view = build(spec_of("pyramid3", num_classes=4, input_size=(3, 16, 16)))
        network = convert(view, [exits, forks], routers=RouterConfig(hidden=16, normalize=False, detach=detach))
        (first, *router), *_ = network.routers.each(0)
        (decider,) = network.deciders[0].each
        assert isinstance(first, torch.nn.Identity)
        assert [str(layer) for layer in router] == [str(layer) for layer in decider.router]
        linear = [layer for layer in router if isinstance(layer, torch.nn.Linear)]
        assert not any(layer.bias.any() for layer in linear)
        assert not linear[-1].weight.any()
        for layer in linear[:-1]:
            want = (2 / (layer.in_features + layer.out_features)) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(want, rel=0.2)
        torch.nn.init.normal_(linear[-1].weight)
        # What the fork decides teaches the column before it, or nothing.
        scores = network(x, routes=network.layout.every_path(len(x))[: len(x)], execution=masked).at_units[0].logits
        scores[:, 0].sum().backward()
        taught = {name.split(".")[1] for name, p in network.backbone.named_parameters() if p.grad is not None}
        assert taught == (set() if detach else {"0"})


@torch.no_grad()
def test_paths_begin_anew_or_near_the_chain() -> None:
    for spread, alike in ((1.0, 0.0), (0.1, 0.995)):
        torch.manual_seed(0)
        view = build(spec_of("pyramid8", num_classes=10))
        chain = view.model.linear.weight.clone(), view.model.columns[5].same[0].weight.clone()
        network = convert(view, [Exit(at="all", head="linear"), Tree(forks="columns.1", spread=spread)])
        _, second = network.view.model.path_heads.each
        ends = second.model.linear
        _, column = on_paths(network.view.units[5])
        assert not ends.bias.any()
        for old, new in zip(chain, (ends.weight, column.same[0].weight), strict=True):
            assert float(new.std() / old.std()) == pytest.approx(1, abs=0.03)  # of Xavier's method, as the chain
            assert float(torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1]) == pytest.approx(
                alike, abs=0.03
            )


def test_classifiers_of_all_paths_know_whether_they_learn() -> None:
    view = build(spec_of("timm:resnet18", num_classes=4, input_size=(3, 32, 32)))
    view.model.drop_rate = 0.5
    view.model.train()
    network = convert(view, [Exit(at="stages"), Tree(forks="layer4.0")])
    assert network.training
    heads = list(view.model.path_heads.each)
    x = torch.randn(2, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    for head in heads:
        network.train()
        assert not torch.equal(head(x), head(x))
        network.eval()
        assert torch.equal(head(x), head(x))
    # Of the copied network, nothing but its classifier is kept.
    assert [name for name, _ in heads[1].named_parameters()] == ["model.fc.weight", "model.fc.bias"]


@pytest.mark.parametrize("kind", ["actor", "pragmatic"])
def test_a_tree_learns_to_meet_its_budget(kind: str) -> None:
    torch.manual_seed(0)
    network = convert(toy_view(), [EXITS, FORKS], routers=RouterConfig(hidden=8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    heads = 0.5 if kind == "actor" else 0.0  # without, paths learn as fast as few images take them
    weights = ObjectiveWeights(distillation=0.5, policy=PolicyConfig(kind=kind, heads=heads))
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 8})
    run = trainer(network=network, weights=weights, config=config)
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.06)
    after = network.state_dict()
    same = [name for name in before if torch.equal(before[name], after[name])]
    # All of every path has learned; what decides has its bias from a budget, which speaks for stops alone.
    (bias,) = (name for name, value in network.named_buffers() if value is network.routers.bias)
    assert bias in same
    assert len([name for name in before if name.startswith("_routers.") and name.endswith("3.weight")]) == 3
    assert not [name for name in same if not name.endswith("bias") and not name.startswith("_routers.")]
    assert not [name for name in same if name.endswith("3.weight")], "the last layers of routers"


@torch.no_grad()
def test_saved_with_all_its_paths(tmp_path: Path) -> None:
    view = build(spec_of("resnet20", num_classes=4))
    network = convert(view, [Exit(at="stages"), Tree()]).eval()
    for parameter in network.routing_parameters():
        parameter.normal_()
    save_network(tmp_path, network, about={})
    again, x = load(tmp_path), torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    routes = network.layout.every_path(6)
    assert torch.equal(
        again(x.repeat(4, 1, 1, 1), routes=routes).logits, network(x.repeat(4, 1, 1, 1), routes=routes).logits
    )
    assert torch.equal(again(x).routes, network(x).routes)


def test_what_a_tree_cannot_be(tmp_path: Path) -> None:
    def made(*junctions: Junction, **options) -> RoutedNetwork:
        return convert(toy_view(), junctions, **options)

    with pytest.raises(InputError, match=r"no fork can lie at 'body\.9': known: stages, body\.0, body\.1, body\.2"):
        made(EXITS, Tree(forks="body.9"))
    for other in (Skip(), Branch(candidates=1), Cascade(), Again()):
        with pytest.raises(InputError, match=r"a tree takes exits alone beside it: junctions=tree,exit"):
            made(EXITS, FORKS, other)
    for options in ({"adaptive_cost": PriceRange()}, {"routers": RouterConfig(kind="rnn")}):
        with pytest.raises(InputError, match=r"a tree takes no adaptive_cost, and routers\.kind=fc"):
            made(EXITS, FORKS, **options)
    pruned = replace(toy_view(), pruned=True)
    with pytest.raises(InputError, match=r"custom:toy was pruned: a tree grows from a whole network"):
        convert(pruned, [EXITS, FORKS])
    one_stage = build(spec_of("pyramid2", num_classes=3))
    with pytest.raises(InputError, match="a tree has 1 to 6 forks, here 0"):
        convert(one_stage, [Exit(at="all"), Tree()])
    with pytest.raises(InputError, match="pyramid2 has no unit where junctions"):
        convert(one_stage, [Exit(at="stages"), Tree(forks="columns.1")])
    for junctions in ([FORKS], [FORKS, Exit(at="body.0", rule="confidence")]):
        with pytest.raises(InputError, match=r"a tree needs exits that learn: junctions=tree,exit"):
            made(*junctions)
    for save in (save_onnx, save_program):
        with pytest.raises(ExportError, match="a tree of paths runs in torch alone"):
            save(tmp_path, tree(), {})
    assert not any(tmp_path.iterdir())
