"""Programs: which steps junctions make, what the columns of their routes are, and who has to know each kind of step."""

import pytest
import torch

import routekit.cost.table
import routekit.execution.executor
import routekit.execution.fuse
import routekit.formats.onnx.assembly
import routekit.formats.onnx.native  # noqa: F401 - they all are interpreters
from routekit.junctions.again import Again
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert, join
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.junctions.tree import Tree
from routekit.network.network import RoutedNetwork
from routekit.network.program import KINDS, Interpreter, Step, Stop, Units, View, forms_of, passes_of
from routekit.routing.decision import Layout
from routekit.routing.router import RouterConfig
from tests.toy import small_view, toy_routed, toy_view

EXITS = Exit(at="body.0,body.2", head="linear")
TWO_FORMS = Cascade(width=(0.25, 0.5))
UNITS = [f"body.{place}" for place in range(4)]
SMALL_UNITS = [f"layer{stage}.{place}" for stage in (1, 2, 3) for place in (0, 1)]


def toy(*junctions: Junction, **options: object) -> RoutedNetwork:
    return convert(toy_view(), junctions, **options)


def small(*junctions: Junction) -> RoutedNetwork:
    return convert(small_view(), junctions)


def joined() -> RoutedNetwork:
    return join([toy_routed(seed=0), toy(EXITS), toy_routed(seed=1)])


def kinds(steps: list[Step]) -> str:
    return " ".join(type(step).__name__ for step in steps)


@pytest.mark.parametrize("interpreter", Interpreter.every, ids=lambda each: each.name)
def test_every_interpreter_knows_every_kind_of_step(interpreter: Interpreter) -> None:
    assert set(interpreter.table) == set(KINDS)


def test_the_interpreters_are_found() -> None:
    names = {"forward", "cost", "sparse executor", "ONNX", "fusing", "native ONNX"}
    assert names <= {interpreter.name for interpreter in Interpreter.every}


def test_an_interpreter_calls_what_is_registered_for_each_step_in_order() -> None:
    seen: Interpreter[list[str]] = Interpreter("seen")
    try:

        @seen.on(View, Units)
        def _(step: Step, state: list[str]) -> None:
            state.append(type(step).__name__)

        @seen.on(*set(KINDS) - {View, Units})
        def _(step: Step, state: list[str]) -> None:
            state.append(type(step).__name__.lower())

        assert seen(toy().steps, []) == ["View", "stem", "Units", "head"]
    finally:
        Interpreter.every.remove(seen)


def test_a_dense_network_by_hand() -> None:
    network = toy()
    assert kinds(network.steps) == "View Stem Units Head"
    assert network.layout == Layout()
    assert network.columns == []


def test_a_skip_network_by_hand() -> None:
    network = toy(Skip())
    assert kinds(network.steps) == "View Stem Units Head"
    assert network.layout == Layout(sections=(0, 0, 0, 0), stops=(), widths=(1, 1, 1, 1))
    assert network.columns == UNITS
    assert network.layout.of_units == [0, 1, 2, 3]
    assert network.layout.is_stop == (False,) * 4


def test_exits_by_hand() -> None:
    network = toy(Skip(), EXITS)
    assert kinds(network.steps) == "View Stem Units Classify Stop Units Classify Stop Units Head"
    assert network.layout == Layout(sections=(0, 0, 1, 1, 1, 2), stops=(1, 4), widths=(1,) * 6)
    assert network.columns == ["body.0", "past body.0", "body.1", "body.2", "past body.2", "body.3"]
    assert network.layout.of_units == [0, 2, 3, 5]
    assert network.layout.is_stop == (False, True, False, False, True, False)
    assert [(step.first, len(step.units)) for step in network.steps if isinstance(step, Units)] == [
        (0, 1),
        (1, 2),
        (3, 1),
    ]
    alone = toy(EXITS)
    assert kinds(alone.steps) == kinds(network.steps)
    assert alone.layout == Layout(sections=(0, 1), stops=(0, 1), widths=(1, 1))
    assert alone.columns == ["past body.0", "past body.2"]


def test_several_sinks_by_hand() -> None:
    network = small(Skip(), Branch(width=(0.6, 0.2)), Exit(at="layer1.0", head="linear"))
    assert network.layout == Layout(sections=(0, 0, 0, 0, *[1] * 15), stops=(3,), widths=(3, 1, 3, 3, 3, 3, 3))
    assert network.layout.junctions[:3] == (slice(0, 3), slice(3, 4), slice(4, 7))
    assert network.columns[:5] == [
        "layer1.0", "layer1.0 branch 1", "layer1.0 branch 2", "past layer1.0", "layer1.1",
    ]  # fmt: skip
    narrow = small(Branch(width=(0.6, 0.2)))  # of which the last is the default
    assert narrow.layout == Layout(sections=(0,) * 12, widths=(2,) * 6)
    assert narrow.columns[:3] == ["layer1.0", "layer1.0 branch 1", "layer1.1"]


def test_a_cascade_of_two_forms_by_hand() -> None:
    network = small(Skip(), TWO_FORMS)
    assert kinds(network.steps) == "View Stem Units Head Stop Stem Units Head Stop Stem Units Head"
    assert network.layout == Layout(sections=(0, 1, *[2] * 6), stops=(0, 1), widths=(1,) * 8)
    assert network.columns == ["past narrow", "past narrow.1", *SMALL_UNITS]
    first, second, third = (step for step in network.steps if kinds([step]) == "Stem")
    assert (first.kept, first.shared) == (True, False)
    assert (second.kept, second.shared) == (third.kept, third.shared) == (False, True)
    # The exits of the network lie in its own pass.
    exits = small(Exit(at="layer2.0", head="linear"), TWO_FORMS)
    assert exits.layout == Layout(sections=(0, 1, 2), stops=(0, 1, 2), widths=(1, 1, 1))
    assert exits.columns == ["past narrow", "past narrow.1", "past layer2.0"]


def test_a_second_look_by_hand() -> None:
    network = small(Cascade(width=0.3), Again())
    assert kinds(network.steps) == "View Stem Units Head Stop Stem Units Head Stop View Stem Units Head"
    assert network.layout == Layout(sections=(0, 1), stops=(0, 1), widths=(1, 1))
    assert network.columns == ["past narrow", "past end"]
    views = [step for step in network.steps if isinstance(step, View)]
    assert [view.mirrored for view in views] == [False, True]
    *_, last = network.steps
    assert last.combine == "mean-logits"


def test_a_join_by_hand() -> None:
    network = joined()
    one, exits = "View Stem Units Head", "View Stem Units Classify Stop Units Classify Stop Units Head"
    assert kinds(network.steps) == f"{one} Stop {exits} Stop {one}"
    assert network.layout == Layout(sections=(0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4), stops=(4, 5, 6, 7), widths=(1,) * 12)
    assert network.columns == [
        *(f"0/{name}" for name in UNITS),
        "past network 0",
        "past 1/body.0",
        "past 1/body.2",
        "past network 1",
        *(f"2/{name}" for name in UNITS),
    ]
    assert len(network.banks) == 2


def test_a_tree_by_hand() -> None:
    network = toy(EXITS, Tree(forks="body.1, body.3"))
    assert kinds(network.steps) == "View Stem Units Classify Stop Units Classify Stop Units Head"
    assert network.layout == Layout(sections=(0, 1, 1, 2), stops=(0, 2), widths=(1,) * 4, forks=True)
    assert network.columns == ["past body.0", "first sink at body.1", "past body.2", "first sink at body.3"]
    assert network.layout.paths == 4


@pytest.mark.parametrize(
    ("network", "passes"),
    [
        (toy(Skip()), ["View Stem Units Head"]),
        (toy(Skip(), EXITS), ["View Stem Units Classify Stop Units Classify Stop Units Head"]),
        (small(TWO_FORMS), ["View Stem Units Head Stop", "Stem Units Head Stop", "Stem Units Head"]),
        (
            small(Cascade(width=0.3), Again()),
            ["View Stem Units Head Stop", "Stem Units Head Stop", "View Stem Units Head"],
        ),
        (
            joined(),
            [
                "View Stem Units Head Stop",
                "View Stem Units Classify Stop Units Classify Stop Units Head Stop",
                "View Stem Units Head",
            ],
        ),
    ],
    ids=["skip", "exits", "cascade", "again", "join"],
)
def test_passes_begin_with_a_stem_and_the_view_that_it_is_of(network: RoutedNetwork, passes: list[str]) -> None:
    found = list(passes_of(network.steps))
    assert [kinds(steps) for steps in found] == passes
    assert [step for steps in found for step in steps] == network.steps
    assert network.passes == found


def test_a_form_is_named_once_however_many_passes_it_runs_in() -> None:
    looking = small(TWO_FORMS, Again())
    assert [form.model is looking.backbone for form in forms_of(looking.steps)] == [True, False, False]
    assert looking.view.model is looking.backbone
    networks = [toy_routed(seed=0), toy(EXITS)]
    assert [form.model for form in join(networks).forms] == [network.backbone for network in networks]


@pytest.mark.parametrize(
    ("junctions", "kind", "groups"),
    [
        # The third unit down-samples: whatever it does, the features are others.
        ([Skip()], "fc", [[(0, 3), (3, 4)]]),
        ([Skip()], "rnn", [[(0, 1), (1, 2), (2, 3), (3, 4)]]),
        ([Skip(), EXITS], "fc", [[(0, 1)], [(1, 3)], [(3, 4)]]),
    ],
)
def test_units_are_asked_about_together_while_they_see_the_same_features(
    junctions: list[Junction], kind: str, groups: list[list[tuple[int, int]]]
) -> None:
    network = toy(*junctions, routers=RouterConfig(kind=kind))
    found = [[(group.start, group.stop) for group in step.groups] for step in network.steps if isinstance(step, Units)]
    assert found == groups


def test_what_is_added_to_scores_is_in_the_order_of_the_columns() -> None:
    for network in (toy(Skip(), EXITS), small(Skip(), Branch(width=(0.4,)), TWO_FORMS), joined()):
        network.set_bias(torch.arange(len(network.columns)).float())
        stops = network.layout.stops
        assert [float(decider.bias) for decider in network.deciders] == list(stops)
        assert torch.cat([bank.bias for bank in network.banks]).tolist() == network.layout.of_units
        assert network.bias.tolist() == list(range(len(network.columns)))
        assert [network.columns[column] for column in stops] == [f"past {stop.name}" for stop in network.stops]
        assert all(isinstance(stop, Stop) for stop in network.stops)


def test_how_many_units_run_in_all_passes() -> None:
    network = small(Skip(), TWO_FORMS)
    routes = torch.zeros(3, 8, dtype=torch.bool)
    routes[1:, 0] = True
    routes[2, [1, 2, 7]] = True
    assert network.units == 18
    assert network.units_run(routes).tolist() == [6, 12, 14]
