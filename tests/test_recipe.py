"""Recipes: read, checked, listed and copied."""

from pathlib import Path
from typing import Any

import pytest
import torch

from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.tree import Tree
from routekit.network.execution import relaxed
from routekit.pipeline.plan import resolve
from routekit.pipeline.run_plan import Facts
from routekit.recipe import Recipe, load_recipe, shipped_recipes
from routekit.routing.policy import softly
from routekit.training.schedule import MILESTONES
from tests.cli.command import in_process
from tests.toy import toy_noise, toy_view

WRONG = """\
methd: routed
training:
  epoch: 3
  batch_size: many
junctions:
  exit: {rule: learned, counts: 2}
  skp: {}
routers:
  kind: fcc
"""


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(WRONG)
    with pytest.raises(InputError) as caught:
        load_recipe(str(tmp_path / "mine.yaml"))
    faults = str(caught.value).partition("mine.yaml: ")[2].split("; ")
    assert faults == [
        "methd: no such setting: did you mean method? (line 1)",
        "training.epoch: no such setting: did you mean epochs? (line 3)",
        "training.batch_size: Input should be a valid integer, unable to parse string as an integer (line 4)",
        "junctions.exit.counts: no such setting: did you mean count? (line 6)",
        "junctions.skp: unknown junction 'skp': did you mean skip? (line 7)",
        "routers.kind: unknown router 'fcc': did you mean fc? (line 9)",
    ]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("skip", {"junctions": ["skip"]}),
        ("branch", {"junctions": ["branch"]}),
        ("exit", {"junctions": ["exit"]}),
        ("adaptive", {"junctions": ["branch"], "adaptive_cost": {}}),
        ("pruning", {"method": "l1", "junctions": {}}),
    ],
)
def test_a_recipe_is_what_its_options_are(name: str, settings: dict[str, Any]) -> None:
    """What was measured with options of the default holds for the recipe that says the same."""
    assert load_recipe(name) == load_recipe("default", {"pruning": None} | settings)


def test_junctions_are_a_mapping_or_a_list_of_kinds_and_come_in_the_order_in_which_they_are_attached() -> None:
    listed = load_recipe("default", {"junctions": ["again", "cascade"]})
    assert listed == load_recipe("default", {"junctions": {"cascade": {}, "again": None}})
    assert list(listed.junctions) == ["cascade", "again"]
    # Settings of a kind are merged with what the recipe says of it; kinds that are named anew stand alone.
    deep = load_recipe("default", {"junctions.cascade.depth": 0.5})
    assert (list(deep.junctions), deep.junctions["cascade"].depth) == (["cascade", "again"], 0.5)
    assert list(load_recipe("default", {"junctions": ["skip"], "junctions.exit.count": 2}).junctions) == [
        "skip",
        "exit",
    ]
    for wrong in (3, "skip", [["skip"]]):
        with pytest.raises(InputError, match="junctions"):
            load_recipe("default", {"junctions": wrong})


def test_a_recipe_says_what_it_has_otherwise_than_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("base: digits\ntraining: {epochs: 9}\njunctions: [skip]\n")
    own, digits = load_recipe("own.yaml"), load_recipe("digits")
    assert (own.training.epochs, own.training.batch_size) == (9, digits.training.batch_size)
    assert list(own.junctions) == ["skip"]
    assert own.model_copy(update={"training": digits.training, "junctions": digits.junctions}) == digits
    Path("above.yaml").write_text("base: own.yaml\nseed: 3\n")
    assert load_recipe("above.yaml") == own.model_copy(update={"seed": 3})
    # What is written is the whole, and needs no base.
    Path("whole.yaml").write_text(own.to_yaml())
    assert load_recipe("whole.yaml") == own
    assert "base" not in Recipe.model_fields
    Path("own.yaml").write_text("base: above.yaml\n")
    with pytest.raises(InputError, match=r"own\.yaml is its own base: own\.yaml -> above\.yaml -> own\.yaml"):
        load_recipe("own.yaml")
    Path("own.yaml").write_text("base: digit\n")
    with pytest.raises(InputError, match=r"unknown recipe 'digit': did you mean digits\?"):
        load_recipe("own.yaml")
    # The file is not at fault for what its base says, and tells no line of it.
    Path("wrong.yaml").write_text("training: {epoch: 3}\n")
    Path("own.yaml").write_text("base: wrong.yaml\nseed: one\n")
    with pytest.raises(InputError) as caught:
        load_recipe("own.yaml")
    faults = str(caught.value).partition("own.yaml: ")[2].split("; ")
    assert faults[0] == "training.epoch: no such setting: did you mean epochs?"
    assert faults[1].startswith("seed: ")
    assert faults[1].endswith("(line 2)")


def test_what_freezes() -> None:
    """A network stays as it is where all that learns is beside it, and nothing was taken from it."""

    def freezes(name: str, target: str = "60%", **more: Any) -> bool:
        settings = {"model.name": "resnet20", "target": target}
        settings |= {key.replace("__", "."): value for key, value in more.items()}
        return bool(resolve(load_recipe(name, settings)).training.frozen)

    assert not freezes("default", "49%")  # it is pruned for so small a budget
    assert freezes("default")
    assert freezes("default", junctions=["cascade"], pruning=None)
    assert not freezes("default", junctions=["cascade"], pruning=None, training__frozen=False)
    assert not freezes("default", junctions={"cascade": {"own": False}}, pruning=None)
    assert not freezes("default", junctions=["cascade"], pruning={"method": "l1", "target": "70%"})
    assert not freezes("default", junctions=["skip", "cascade"], pruning=None)
    assert not freezes("default", junctions=["skip"], pruning=None)
    assert freezes("skip", junctions=["exit"], training__frozen=True)
    # What has learned nothing yet is not kept as it is.
    scratch = load_recipe("default", {"model.name": "resnet20", "target": "60%", "dense.epochs": 0})
    assert not resolve(scratch, Facts(untrained=True)).training.frozen
    assert resolve(scratch, Facts(untrained=False)).training.frozen


def test_what_is_for_small_budgets_only_is_left_out_for_larger_ones() -> None:
    for budget, prunes in (("49.9%", True), ("50%", False), ("2.0e7", True), ("2.1e7", False)):  # of 41M
        recipe = load_recipe("default", {"model.name": "resnet20", "target": budget})
        assert (resolve(recipe).pruned is not None) == prunes
        assert resolve(recipe).kinds == (["cascade"] if prunes else ["cascade", "again"])
        (note,) = resolve(recipe).notes
        assert note.startswith("does not look again: " if prunes else "not pruned: ")
        # Whoever asks for it gets it.
        asked = load_recipe("default", {"model.name": "resnet20", "target": budget, "pruning": {"method": "l1"}})
        assert resolve(asked).pruned is not None
        assert resolve(asked).kinds == ["cascade", "again"]


def test_what_is_not_mirrored_in_training_is_not_looked_at_again() -> None:
    recipe = load_recipe("default", {"model.name": "resnet20", "target": "60%"})
    assert resolve(recipe, Facts(mirrored=True)).kinds == ["cascade", "again"]
    plan = resolve(recipe, Facts(mirrored=False))
    assert plan.kinds == ["cascade"]
    assert plan.notes[-1].endswith("images of digits are not mirrored in training, either")


def test_settings_that_an_option_gives_have_no_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3}\n")
    with pytest.raises(InputError, match=r"training\.lr: no such setting: known: .*anneal.*$"):
        load_recipe(str(tmp_path / "mine.yaml"), {"training.lr": 3})


def test_what_can_be_one_thing_or_another_is_one_fault() -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("default", {"junctions.cascade.width": "much", "method": "dens", "junctions.branch.width": [2]})
    assert str(caught.value) == (
        "recipe default: method: unknown method 'dens': did you mean dense?; junctions.cascade.width: Input should be "
        "a valid number, unable to parse string as a number, or a valid tuple, or 'auto'; junctions.branch.width: "
        "Input should be less than 1, or 'auto'"
    )


def test_an_option_takes_back_what_a_recipe_says(tmp_path: Path) -> None:
    assert load_recipe("default").pruning is not None
    assert load_recipe("default", {"pruning": None}).pruning is None
    # A section that is none is told, and not replaced; nor is the file at fault for what an option says.
    (tmp_path / "mine.yaml").write_text("data: cifar10\npruning: {method: l1}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(str(tmp_path / "mine.yaml"), {"data.root": "data", "pruning": {"method": "foo"}})
    assert str(caught.value).partition("mine.yaml: ")[2] == (
        "pruning.method: unknown pruning method 'foo': known: bn, depgraph, fpgm, l1, random; data: Input should be a "
        "valid dictionary or instance of DataSection (line 1)"
    )


def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("method: [routed\ntraining: 3\n")
    with pytest.raises(InputError, match=r"is no YAML: .*line 2"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_the_commands(tmp_path: Path) -> None:
    listed = in_process("recipes", "list", cwd=tmp_path)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == shipped_recipes()
    assert all(line.endswith(".") and len(line) < 130 for line in listed.stdout.splitlines())
    assert (
        "routekit convert resnet110 --target-flops 1.5e8"
        in in_process("recipes", "show", "digits", cwd=tmp_path).stdout
    )
    assert in_process("recipes", "copy", "digits", "mine.yaml", cwd=tmp_path).returncode == 0
    assert in_process("recipes", "validate", "mine.yaml", cwd=tmp_path).stdout == "mine.yaml is valid\n"
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("digits")
    for wrong, says in [
        (("copy", "digits", "mine.yaml"), "mine.yaml exists"),
        (("copy", "digits", "mine.txt"), "a recipe is a .yaml file"),
        (("copy", "digits", "no/mine.yaml"), "there is no folder no"),
        (("show", "digit"), "did you mean digits?"),
    ]:
        refused = in_process("recipes", *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert says in refused.stderr


def test_drn_has_the_values_of_its_paper() -> None:
    """Wang et al., section 4.1, Fig. 2 and Eq. 3 to 10; what they leave open is marked as ours in the recipe."""
    recipe = load_recipe("drn")
    objective, training = recipe.objective, recipe.training
    assert (objective.consistency, objective.diversity, objective.regularization) == (0.2, 0.2, 0.5)
    assert (objective.consistency_margin, objective.diversity_margin) == (0.2, 0.5)
    assert objective.regularization_over == "copies"
    assert (objective.distillation, objective.feature_distillation) == (0.0, 0.0)
    for section in (training, recipe.dense):
        assert (section.learning_rate, section.momentum, section.nesterov) == (0.1, 0.9, False)
        assert (section.weight_decay, section.decay) == (1e-4, "multistep")
        assert [milestone * section.epochs for milestone in MILESTONES] == [150, 200]
    assert (training.router_weight_decay, training.router_learning_rate) == (1e-4, 1.0)
    assert (training.gate, training.copies > 1) == ("soft", True)
    assert (recipe.routers.kind, recipe.routers.normalize, recipe.routers.detach) == ("fc", False, False)
    assert (recipe.data.augment, recipe.data.fill) == ("autoaugment", "zeros")
    assert recipe.inference == "hard"
    assert list(recipe.junctions) == ["skip"]


def test_multipath_has_the_values_of_its_paper() -> None:
    """McGill and Perona, sections 4.4 to 4.8, and Fig. 3."""
    for name, kind, first in (
        ("multipath", "actor", 1.0),
        ("multipath-critic", "pragmatic", 0.1),
        ("tree", "actor", 1.0),
    ):
        recipe = load_recipe(name)
        training, policy = recipe.training, recipe.objective.policy
        assert (training.learning_rate, training.momentum, training.nesterov) == (0.1, 0.9, False)
        assert (training.batch_size, training.decay, training.half_life) == (128, "exponential", 1 / 8)
        assert training.temperature == pytest.approx((first, first / 2**8), rel=2e-3)
        assert (training.weight_decay, training.router_weight_decay, policy.l2) == (0.0, 0.0, 1e-4)
        assert (policy.kind, policy.error, policy.l2_routes) == (kind, "loss", False)
        assert (policy.decisiveness, policy.utility) == (0.01 if kind == "actor" else 0.0, 0.001)
        assert (policy.heads, training.throughput_adjusted, training.router_learning_rate) == (0.0, True, 1.0)
        assert recipe.data.fill == "decoded-mean"
        exits = recipe.junctions["exit"]
        assert (exits.at, exits.head, exits.hidden, exits.layers) == ("all", "linear", 16, 2)
        assert (exits.normalize, exits.answer, exits.features, exits.detach) == (True, False, None, False)
        assert recipe.dense.weight_decay == 2 * policy.l2, "the gradient of k_L2 w^2"
    tree, routers = recipe.junctions["tree"], recipe.routers
    assert isinstance(tree, Tree)
    assert (tree.layers, tree.normalize, tree.spread) == (exits.layers, exits.normalize, 1.0)
    assert (routers.hidden, routers.normalize, routers.detach) == (exits.hidden, False, False)


def test_a_router_at_an_exit_begins_as_the_paper_says() -> None:
    """Section 4.7: Xavier's method, the last layer and all biases zero. At any temperature both ways are open."""
    network = convert(toy_view(), [load_recipe("multipath").junctions["exit"]])
    for decider in network.deciders:
        linear = [layer for layer in decider.router if isinstance(layer, torch.nn.Linear)]
        assert [layer.out_features for layer in linear] == [16, 16, 2]
        assert [type(layer).__name__ for layer in decider.router[:3]] == ["Linear", "BatchNorm1d", "ReLU"]
        assert all(bool((layer.bias == 0).all()) for layer in linear)
        assert bool((linear[-1].weight == 0).all())
        for layer in linear[:2]:
            want = (2 / (layer.in_features + layer.out_features)) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(want, rel=0.3)
        assert decider.router[1].eps == 1e-6
    trace = network.train()(toy_noise(4), execution=relaxed)
    chances = [softly(0.1)(stop.logits) for stop in trace.stops]
    assert all(bool((chance == 0.5).all()) for chance in chances)
    with torch.no_grad():
        assert bool(network.eval()(toy_noise(4)).routes.all())  # converting is exact


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"objective.consistency": 0.2},
            "objective.consistency compares copies of an image: training.copies=2, or more",
        ),
        ({"objective.reward.kind": "skipnet", "junctions": {"exit": {}}}, "whose decisions can be drawn"),
        ({"inference": "bernoulli", "junctions": {"tree": {}, "exit": {}}}, "inference=bernoulli is for units whose"),
        ({"inference": "bernoulli", "junctions": {"act": {}}}, "inference=bernoulli is for units whose decisions"),
        ({"training.gate": "hard"}, "junctions=act and sact, and no others, need training.gate=hard"),
        ({"junctions": {"act": {}}}, "junctions=act and sact, and no others, need training.gate=hard"),
        ({"junctions": {"sact": {}, "skip": {}}, "training.gate": "hard"}, "junctions=sact goes alone"),
        ({"junctions": {"act": {}, "skip": {}}, "training.gate": "hard"}, "junctions=act goes alone"),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], says: str) -> None:
    recipe = load_recipe("skip", {"model.name": "resnet20", "target": "50%"} | settings)
    with pytest.raises(InputError) as caught:
        resolve(recipe, Facts(classes=10))
    assert says in str(caught.value)
