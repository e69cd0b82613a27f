"""Which cells a comparison has, and what recipe each is."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from routekit.backbones.load import build, spec_of
from routekit.comparison.check import check_plan
from routekit.comparison.commands import command_of
from routekit.comparison.method import check_stacked, settings
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.timing import read_timings
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import save_network
from routekit.junctions.convert import convert
from routekit.pipeline.build import network_of
from routekit.pipeline.plan import resolve
from routekit.recipe import load_recipe
from tests.records import whole


def plan(**more: Any) -> Plan:
    given: dict[str, Any] = {"methods": ["dense", "skip", "l1"], "budgets": ["40%", "60%"], "seeds": [0, 1]}
    given["shared"] = {"model.name": "resnet20", "training.epochs": 4}
    return Plan(base="default", **(given | more))


def finished(folder: Path, cost: float) -> str:
    """A run that is done, of a network that costs so many MACs, of the 4.1e7 of a ResNet-20."""
    record = {"flops": {"realized": cost}}
    save_network(folder / "network", convert(build(spec_of("resnet20"))), about={"record": json.loads(whole(record))})
    (folder / "record.json").write_text(whole(record))
    return str(folder)


def test_every_combination_is_a_cell_and_the_first_seed_comes_first() -> None:
    names = [cell.name for cell in plan().cells()]
    assert names == [
        "dense-seed0", "skip-40pct-seed0", "l1-40pct-seed0", "skip-60pct-seed0", "l1-60pct-seed0",
        "dense-seed1", "skip-40pct-seed1", "l1-40pct-seed1", "skip-60pct-seed1", "l1-60pct-seed1",
    ]  # fmt: skip


def test_what_methods_set() -> None:
    nothing: dict[str, Any] = {"junctions": {}, "pruning": None, "smaller": []}
    assert settings("dense", None) == {"method": "dense", "target": None} | nothing
    assert settings("firstk", "40%") == {"method": "firstk", "target": "40%"} | nothing
    routed = {"method": "routed", "target": "40%", "junctions": {"skip": {}, "exit": {}}, "pruning": None}
    assert settings("skip+exit", "40%") == routed
    assert settings("confidence", "40%")["junctions"] == {"exit": {"rule": "confidence"}}
    stacked = settings("l1+skip", "49%")
    assert stacked["junctions"] == {"skip": {}}
    assert stacked["pruning"] == {"method": "l1"}


def test_a_cascade_ends_with_the_network_or_with_what_is_left_of_it(tmp_path: Path) -> None:
    small = finished(tmp_path, cost=1.0e7)
    several = plan(methods=["idk", "l1+idk"], budgets=["49%"], smaller=[small])
    names = ["smaller0-seed0", "idk-49pct-seed0", "l1+idk-49pct-seed0", "l1+idk-49pct-seed1"]
    assert [cell.name for cell in several.cells()] == names
    _, plain, cut, _ = several.cells()
    for cell, pruning in ((plain, None), (cut, "l1")):
        recipe = several.recipe(cell, Path("start"))
        assert (recipe.smaller, list(recipe.junctions), recipe.target) == ([small], ["cascade"], "49%")
        assert (recipe.pruning and recipe.pruning.method) == pruning
    command = command_of(several, cut)
    assert command.startswith("routekit convert resnet20 ")
    # --epochs 4 would shorten the training of a dense network, about which the plan says nothing.
    longer = "--set dense.epochs=8.0"
    assert command.endswith(f"--target-flops 49% --junctions cascade --prune l1 {longer} --smaller {small} --seed 0")
    assert "--prune" not in command_of(several, plain)
    # Half-way to 49% is 70% of the dense network.
    made = resolve(several.recipe(cut)).as_last(train=False)
    assert (made.method, made.pruned, made.junctions, made.training.epochs) == ("l1", None, {}, 4)
    assert (made.target, made.smaller) == (pytest.approx(0.7 * made.dense_cost), [])
    several.shared["pruning.target"] = "80%"
    assert resolve(several.recipe(cut)).as_last(train=False).target == pytest.approx(0.8 * made.dense_cost)
    with pytest.raises(InputError, match=r"method l1\+idk joins this network .* --smaller"):
        check_plan(plan(methods=["l1+idk"]))


def test_a_cascade_with_a_pruned_network_is_not_begun_for_a_budget_out_of_its_reach(tmp_path: Path) -> None:
    smaller = [finished(tmp_path, cost=2.0e7)]
    check_plan(plan(methods=["l1+idk", "idk"], smaller=smaller, budgets=["60%", "90%"]))
    for method, budget, said in (
        ("l1+idk", "40%", "it costs at least 49%, the smallest network alone"),
        ("idk", "40%", "it costs at least 49%, the smallest network alone"),
        ("idk", "149%", "it costs at most 148%, all of its networks"),
        ("l1+idk", "100%", "nothing is pruned for so large a budget"),
    ):
        with pytest.raises(InputError, match=f"{re.escape(method)} at {budget}: .*{said}"):
            check_plan(plan(methods=[method], smaller=smaller, budgets=[budget]))


def test_a_smaller_network_answers_the_same_test_images_as_the_others(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(whole({"seed": 1}))
    carved = {"shared": {"model.name": "resnet20", "data.val_from_test": 0.5}, "smaller": [str(tmp_path)]}
    with pytest.raises(InputError, match=r"made with seed 1, .* make it with --seed 0"):
        check_plan(plan(**carved))
    check_plan(plan(**carved, seeds=[1]))
    check_plan(plan(smaller=[str(tmp_path)]))  # a folder of its own, or training images, leave the test images whole


def test_behind_smaller_networks_the_default_prunes_for_every_budget_under_the_dense_cost(tmp_path: Path) -> None:
    chosen = load_recipe("default", {"model.name": "resnet20", "target": "60%"})
    assert resolve(chosen).pruned is None
    behind = chosen.model_copy(update={"smaller": [finished(tmp_path, cost=1.0e7)]})
    made = resolve(behind)
    assert made.pruned is not None
    assert (made.pruned.method, made.pruned.cost) == ("l1", pytest.approx(0.6**0.5 * made.dense_cost))
    # Whole networks that are joined have no junctions of the last one's, and do not look again.
    assert (made.kinds, made.rule, made.second_look) == ([], "confidence", False)
    assert resolve(behind.model_copy(update={"target": "100%"})).pruned is None


@pytest.mark.parametrize("setting", ["pruning.method", "pruning.below", "pruning"])
def test_what_is_pruned_is_said_by_methods(setting: str) -> None:
    wrong = plan(methods=["l1+skip"])
    wrong.shared[setting] = "fpgm"
    with pytest.raises(InputError, match=f"--set {setting}: methods say what is pruned"):
        check_plan(wrong)


def test_a_budget_for_which_nothing_is_pruned_is_none_of_a_method_that_prunes() -> None:
    with pytest.raises(InputError, match=r"l1\+skip at 100%: nothing is pruned for so large a budget"):
        check_plan(plan(methods=["l1+skip"], budgets=["100%"]))


def test_what_is_stacked_is_pruned_first() -> None:
    assert check_stacked("prune+skip") == "l1+skip"
    assert check_stacked("fpgm+skip+exit") == "fpgm+skip+exit"
    for name in ("skip+l1", "prune", "prune+", "prune+skp"):
        with pytest.raises(InputError, match=r"first prune, then route|unknown method"):
            check_stacked(name)


@pytest.mark.parametrize("name", ["skp", "skip+l1", "skip+skip", "exit+confidence", "l1+l1"])
def test_what_is_no_method(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown method|names one thing twice"):
        settings(name, "40%")


def test_all_cells_share_everything_but_what_their_method_is() -> None:
    for cell in plan(methods=["dense", "drn", "skip", "l1", "firstk"]).cells():
        recipe = plan().recipe(cell, Path("start"))
        assert recipe.model.weights == "start"
        assert (recipe.training.epochs, recipe.training.batch_size, recipe.seed) == (4, 128, cell.seed)
        assert recipe.target == cell.budget
        assert recipe.objective.distillation == (0.0 if cell.method == "drn" else 0.9)


def test_what_cannot_be_is_told_before_anything_is_done_and_all_of_it() -> None:
    with pytest.raises(InputError) as caught:
        check_plan(plan(methods=["brnch", "prune+skip", "idk"], budgets=["30%", "abc", "0%"]))
    assert str(caught.value).split("; ") == [
        "--budgets abc,0%: no cost: write 1.5e8, 150M or 60% (fvcore: 1 multiply-add = 1 FLOP (MACs))",
        "unknown method 'brnch': did you mean branch or bn or drn?",
        "several as skip+exit or l1+skip",
        "unknown method 'prune+skip': --stack prune+skip prunes before it routes, or --methods l1+skip",
        "method idk joins this network with smaller ones: begin a comparison with their runs, --smaller",
    ]
    with pytest.raises(InputError, match="no finished run"):
        check_plan(plan(methods=["idk"], smaller=["nowhere"]))
    lost = plan()
    lost.shared["model.weights"] = "no.th"
    with pytest.raises(InputError, match=r"^model\.weights=no\.th: no such file or run$"):
        check_plan(lost)


def test_each_budget_out_of_reach_is_told_with_what_can_be() -> None:
    with pytest.raises(InputError) as caught:
        check_plan(plan(methods=["dense", "skip", "exit", "l1", "firstk"], budgets=["60%", "20%", "1%", "120%"]))
    assert str(caught.value).split("; ") == [
        "exit at 20%, 1%: it costs at least 37%, every image stopped at the first exit",
        "skip at 1% and firstk at 1%: it costs at least 2%, every unit skipped",
        "l1 at 1%: l1 cannot prune resnet20 below 19%",
        "skip at 120% and exit at 120% and l1 at 120% and firstk at 120%: it costs at most 100%, the dense network",
        "leave out budgets 20%, 1%, 120%",
    ]
    with pytest.raises(InputError, match=r"every image stopped at the first exit; leave out methods exit$"):
        check_plan(plan(methods=["skip", "exit"], budgets=["20%"]))
    with pytest.raises(InputError, match=r"; leave out budgets 20% or methods exit$"):
        check_plan(plan(methods=["skip", "exit"], budgets=["60%", "20%"]))


@pytest.mark.parametrize("budget", ["49%", "2.0e7"])
def test_pruning_and_routing_take_the_same_share(budget: str) -> None:
    made = resolve(plan().recipe(Cell("l1+cascade", budget, 0)))
    network, whole = network_of(made, build(spec_of("resnet20"))), made.dense_cost
    wanted = 0.7 if budget == "49%" else (2.0e7 / whole) ** 0.5
    left = CostTable.measure(convert(network.view)).dense / whole
    assert left == pytest.approx(wanted, rel=0.02)
    # And how narrow the first form is, is a share of what is left.
    ((cascade,),) = (source.junctions for source in network.blueprint.sources)
    assert cascade.width == pytest.approx(0.6 * wanted, abs=0.01)


def test_a_plan_grows() -> None:
    before = plan()
    more = before.extended(["l1", "exit"], ["50%"], range(1))
    assert (more.methods, more.budgets) == (["dense", "skip", "l1", "exit"], ["40%", "60%", "50%"])
    assert more.seeds == [0, 1]
    assert {cell.name for cell in before.cells()} < {cell.name for cell in more.cells()}
    assert before.extended([], [], []) == before


def test_narrow_forms_fit_the_budget() -> None:
    for budget in ("25%", "80%"):
        check_plan(plan(methods=["branch", "cascade"], budgets=[budget]))
        cell = Cell("branch", budget, 0)
        made = resolve(plan().recipe(cell))
        network = network_of(made, build(spec_of("resnet20")))
        ((branch,),) = (source.junctions for source in network.blueprint.sources)
        assert branch.width == (pytest.approx(0.6 * float(budget[:-1]) / 100, abs=0.005),)
        assert made.target is not None
        assert 0.5 < CostTable.measure(network).minimum / made.target < 0.85


def test_a_comparison_is_opened_as_it_was_written(tmp_path: Path) -> None:
    folder = ComparisonFolder.create(tmp_path / "c", plan(), force=False)
    assert ComparisonFolder.open(tmp_path / "c") == (folder, plan())
    with pytest.raises(InputError, match="resume="):
        ComparisonFolder.create(tmp_path / "c", plan(), force=False)
    (tmp_path / "c" / "cells").mkdir()
    ComparisonFolder.create(tmp_path / "c", plan(seeds=[3]), force=True)
    assert not (tmp_path / "c" / "cells").exists()
    kept = tmp_path / "c" / "start"
    kept.mkdir()
    for needed in ({"shared": {"model.weights": str(kept)}}, {"smaller": [str(kept)]}):
        with pytest.raises(InputError, match=r"would be made of .*start, which is in it"):
            ComparisonFolder.create(tmp_path / "c", plan().model_copy(update=needed), force=True)
    assert kept.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(InputError, match="other files"):
        ComparisonFolder.create(tmp_path / "other", plan(), force=True)
    with pytest.raises(InputError, match="no comparison"):
        ComparisonFolder.open(tmp_path / "other")
    assert read_timings(ComparisonFolder(tmp_path / "c")) is None
    (tmp_path / "c" / "timings.json").write_text("{")
    with pytest.raises(InputError, match="damaged: delete it"):
        read_timings(ComparisonFolder(tmp_path / "c"))
    (tmp_path / "c" / "plan.yaml").write_text("# routekit comparison, version 1\nbase: 3\n")
    with pytest.raises(InputError, match="damaged"):
        ComparisonFolder.open(tmp_path / "c")
    (tmp_path / "c" / "plan.yaml").write_text("base: x\n")
    with pytest.raises(InputError, match="another version"):
        ComparisonFolder.open(tmp_path / "c")


def test_a_comparison_is_gone_on_with_only_by_one_that_begins_alike(tmp_path: Path) -> None:
    there = plan(methods=["skip"])
    ComparisonFolder.create(tmp_path, there, force=False)
    more = plan(methods=["l1"], budgets=["50%"], seeds=[0])
    with pytest.raises(InputError, match=r"holds a comparison: go on with resume=.*, or start over with force=True"):
        ComparisonFolder.check_free(tmp_path, more, force=False)
    more.shared |= {"model.name": "resnet56", "data.source": "cifar10", "model.weights": "w.th", "training.epochs": 6}
    with pytest.raises(InputError) as caught:
        ComparisonFolder.check_free(tmp_path, more, force=False)
    assert str(caught.value) == (
        f"{tmp_path} holds another comparison (network resnet20, not resnet56; data digits, not cifar10; weights auto, "
        "not w.th; training.epochs 4, not 6): choose another folder, or start over with force=True"
    )
    ComparisonFolder.check_free(tmp_path, more, force=True)
    # What is not given is as the recipe says.
    same = plan()
    same.shared |= {"data.source": "digits", "model.weights": "auto"}
    assert there.differences(same) == []


def test_names_of_cells() -> None:
    assert Cell("skip+exit", "1.5e8", 2).name == "skip+exit-1.5e8-seed2"


def test_the_command_of_a_cell_makes_the_same_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the report tells the user to type comes to the very recipe that was carried out."""
    from routekit_cli import main

    import routekit.pipeline.train

    seen: list[Any] = []
    monkeypatch.setattr(routekit.pipeline.train, "run", lambda recipe, *rest, **more: seen.append(recipe) or {})
    methods = ["dense", "drn", "skip", "confidence", "l1", "firstk", "l1+skip", "l1+cascade", "skip+branch"]
    several = plan(methods=methods, budgets=["60%"], seeds=[2])
    several.shared |= {"model.weights": "none", "training.temperature": [1.0, 0.5], "pruning.target": "80%"}
    for cell in several.cells():
        line = shlex.split(command_of(several, cell))
        assert main.call([*line[1:], "--out", "nowhere"]) == 0
        want = several.recipe(cell)
        assert seen.pop() == want, cell.name
        if cell.method.startswith("l1+"):
            assert want.pruning is not None
            assert (want.pruning.method, want.pruning.target) == ("l1", "80%")
        else:
            assert want.pruning is None or cell.method == "drn"
