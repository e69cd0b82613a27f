"""Recipes: read, checked, listed and copied."""

from pathlib import Path
from typing import Any

import pytest

from routekit.errors import InputError
from routekit.pipeline.build import settled
from routekit.recipe import load_recipe, shipped_recipes
from tests.cli.command import in_process

WRONG = """\
methd: routed
training:
  epoch: 3
  batch_size: many
exits: {rule: learned, counts: 2}
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
        "exits.counts: no such setting: did you mean count? (line 5)",
        "routers.kind: unknown router 'fcc': did you mean fc? (line 7)",
    ]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("skip", {"junctions": ["skip"]}),
        ("branch", {"junctions": ["branch"]}),
        ("exit", {"junctions": ["exit"]}),
        ("adaptive", {"junctions": ["branch"], "adaptive_cost": {}}),
        ("pruning", {"method": "l1", "junctions": []}),
    ],
)
def test_a_recipe_is_what_its_options_are(name: str, settings: dict[str, Any]) -> None:
    """What was measured with options of the default holds for the recipe that says the same."""
    assert load_recipe(name) == load_recipe("default", {"pruning": None} | settings).model_copy(
        update={"cascade": load_recipe(name).cascade}
    )


def test_what_freezes() -> None:
    """A network stays as it is where all that learns is beside it, and nothing was taken from it."""
    cascade = {"junctions": ["cascade"], "pruning": None}
    assert not load_recipe("default").freezes
    assert load_recipe("default", cascade).freezes
    assert not load_recipe("default", cascade | {"training.frozen": False}).freezes
    assert not load_recipe("default", cascade | {"cascade.own": False}).freezes
    assert not load_recipe("default", cascade | {"pruning": {"method": "l1", "target": "70%"}}).freezes
    assert not load_recipe("default", cascade | {"junctions": ["skip", "cascade"]}).freezes
    assert not load_recipe("default", {"junctions": ["skip"], "pruning": None}).freezes
    assert load_recipe("skip", {"junctions": ["exit"], "training.frozen": True}).freezes


def test_what_is_for_small_budgets_only_is_left_out_for_larger_ones() -> None:
    for budget, prunes in (("49.9%", True), ("50%", False), ("2.0e7", True), ("2.1e7", False)):  # of 41M
        recipe = load_recipe("default", {"model.name": "resnet20", "target": budget})
        assert (settled(recipe).pruning is not None) == prunes
        assert settled(recipe).junctions == (["cascade"] if prunes else ["cascade", "again"])
        # Whoever asks for it gets it.
        asked = settled(load_recipe("default", {"target": budget, "pruning": {"method": "l1"}}))
        assert asked.pruning is not None
        assert asked.junctions == ["cascade", "again"]
    assert settled(load_recipe("default", {"target": "60%"})).freezes


def test_settings_that_an_option_gives_have_no_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("training: {epochs: 3}\n")
    with pytest.raises(InputError, match=r"training\.lr: no such setting: known: .*anneal.*$"):
        load_recipe(str(tmp_path / "mine.yaml"), {"training.lr": 3})


def test_what_can_be_one_thing_or_another_is_one_fault() -> None:
    with pytest.raises(InputError) as caught:
        load_recipe("default", {"cascade.keep": "much", "method": "dens", "branches.keep": [2]})
    assert str(caught.value) == (
        "recipe default: method: unknown method 'dens': did you mean dense?; branches.keep: Input should be less than "
        "1, or 'auto'; "
        "cascade.keep: Input should be a valid number, unable to parse string as a number, or a valid tuple, or 'auto'"
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
        (("copy", "digits", "no/mine.yaml"), "cannot write to"),
        (("show", "digit"), "did you mean digits?"),
    ]:
        refused = in_process("recipes", *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert says in refused.stderr
