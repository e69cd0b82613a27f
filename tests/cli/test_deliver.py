"""`export` and `predict`: a run's network in the hands of its users."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import BENCH, in_process, routekit, write_tree


def test_export_then_evaluate_the_compact_checkpoint(workplace: Path) -> None:
    done = routekit("export", "runs/routed", "--out", "compact", "--dtype", "float16", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["folded"] > 0
    assert report["bytes"]["compact"] < 0.7 * report["bytes"]["run"]
    again = routekit("export", "runs/routed", "--out", "compact", cwd=workplace)
    assert again.returncode == 2
    assert "--force" in again.stderr
    done = routekit("evaluate", "compact", "--data", "images", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    evaluated = json.loads(done.stdout)
    assert evaluated["images"] == 36
    # The dense network is the one that the user came with, whatever was dropped and folded since.
    whole = json.loads((workplace / "routed.json").read_text())
    assert evaluated["flops"]["dense"] == whole["flops"]["dense"]
    # Half precision is for what computes, not for what decides; one image of 36 may still fall the other way.
    assert evaluated["accuracy"]["routed"] == pytest.approx(whole["accuracy"]["routed"], abs=1.5 / 36)
    assert evaluated["flops"]["realized"] == pytest.approx(whole["flops"]["realized"], rel=0.05)
    assert evaluated["accuracy"]["dense"] == whole["accuracy"]["dense"]
    # What the dense network makes of other images is known if it is the one that is measured.
    write_tree(workplace / "other", train=2)
    for run in ("compact", "runs/dense"):
        done = in_process("evaluate", run, "--data", "other", "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["accuracy"]
        assert found["dense"] == (found["routed"] if run == "runs/dense" else None)
    done = in_process("evaluate", "compact", "--data", "other", cwd=workplace)
    assert re.search(r"accuracy   [\d.]+% routed\n", done.stdout)
    done = in_process("evaluate", "compact", "--data", "images", "--target-flops", "60%", "--keep", "k", cwd=workplace)
    assert (done.returncode, "compact does not say how" in done.stderr) == (2, True)


def test_what_has_no_batch_norms_any_more_is_not_trained(workplace: Path) -> None:
    done = in_process("export", "runs/dense", "--out", "folded", cwd=workplace)
    assert done.returncode == 0, done.stderr
    words = ("convert", "resnet20", "--weights", "folded", "--data", "images", "--target-flops", "60%")
    done = in_process(*words, "--set", "data.input_size=32", "--dry-run", cwd=workplace)
    assert done.returncode == 2
    assert "compact" in done.stderr


def test_what_is_exported_is_not_replaced_by_its_export(workplace: Path) -> None:
    before = (workplace / "runs/routed/network/network.safetensors").read_bytes()
    for out in ("runs/routed", "runs/routed/network", "runs"):
        for form in ([], ["--format", "onnx"]):
            done = in_process("export", "runs/routed", "--out", out, "--force", *form, cwd=workplace)
            assert done.returncode == 2
            assert "which is in it" in done.stderr
    assert (workplace / "runs/routed/network/network.safetensors").read_bytes() == before


def test_what_is_replaced_is_gone(workplace: Path) -> None:
    done = in_process("export", "runs/routed", "--out", "again", "--format", "onnx", cwd=workplace)
    assert done.returncode == 0, done.stderr
    done = in_process("export", "runs/routed", "--out", "again", "--force", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (workplace / "again").iterdir()} == {
        "network.json",
        "network.safetensors",
        "routekit.json",
    }


def test_the_default_from_end_to_end(workplace: Path) -> None:
    """The pruned network's cascade with itself: whatever is told of its cost is told beside the network that came."""
    convert = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--set", "training.batch_size=16",
        "--json", "--target-flops",
    ]  # fmt: skip
    done = in_process(*convert, "50%", "--epochs", "0", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "not pruned: that is for budgets under 50%" in done.stderr
    whole = json.loads(done.stdout)
    assert whole["run"] == "runs/resnet20-images-cascade+again-50pct-seed0"
    assert "pruning" not in whole
    assert "pruned: null" in (workplace / whole["run"] / "run.yaml").read_text()
    done = in_process(*convert, "45%", "--epochs", "1", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["run"] == "runs/resnet20-images-l1+cascade-45pct-seed0"
    assert (record["pruning"], record["junctions"]) == ("l1", ["cascade"])
    dense = json.loads((workplace / "routed.json").read_text())["flops"]["dense"]
    assert record["flops"]["dense"] == dense
    assert record["flops"]["target"] == 0.45 * dense
    done = in_process("evaluate", record["run"], "--target-flops", "45%,60%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    same, dearer = json.loads(done.stdout)["curve"]
    assert same["flops"] == record["flops"]
    assert dearer["flops"]["target"] == 0.6 * dense
    assert dearer["flops"]["realized"] > record["flops"]["realized"]
    done = in_process("evaluate", record["run"], "--target-flops", "90%", cwd=workplace)
    assert (done.returncode, "can cost from" in done.stderr) == (2, True)
    # As the last network of a cascade, too.
    done = in_process(
        "cascade", "runs/dense", record["run"], "--target-flops", "120%", "--name", "cut", "--json", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    joined = json.loads(done.stdout)["flops"]
    assert (joined["dense"], joined["target"]) == (dense, 1.2 * dense)
    done = in_process("evaluate", "runs/cut", "--target-flops", "120%", "--json", cwd=workplace)
    assert json.loads(done.stdout)["curve"][0]["flops"] == joined
    done = in_process("bench", record["run"], *BENCH, "--batch", "4", cwd=workplace)
    assert done.returncode == 0, done.stderr
    timed = json.loads(done.stdout)
    assert timed["flops"]["dense"] == pytest.approx(dense, rel=0.02)  # batch norms are folded
    assert timed["rows"][0]["ideal"] == pytest.approx(timed["flops"]["dense"] / timed["flops"]["realized"])


def test_exits_that_learned_beside_a_rule(workplace: Path) -> None:
    """One training, two policies: the classifiers are the same, and who decides is in the record."""
    convert = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "70%", "--junctions",
        "exit", "--exits", "layer1.2,layer2.2", "--epochs", "1", "--set", "training.batch_size=16", "--adaptive-cost",
    ]  # fmt: skip
    done = in_process(*convert, "--name", "leaving", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    learned = json.loads(done.stdout)
    assert learned["policy"] == "pragmatic"
    evaluate = ["evaluate", "runs/leaving", "--target-flops"]
    done = in_process(*evaluate, "60%,80%", "--policy", "confidence", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["curve"]
    assert [each["policy"] for each in curve] == ["confidence"] * 2
    assert curve[0]["flops"]["realized"] < curve[1]["flops"]["realized"]
    for each in curve:
        assert [leaf["alone"] for leaf in each["exits"]] == [leaf["alone"] for leaf in learned["exits"]]
    done = in_process(*evaluate, "60%", "--policy", "entropy", "--keep", "runs/entropy", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)["curve"][0]
    done = in_process("evaluate", "runs/entropy", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert (again["policy"], again["accuracy"], again["flops"]) == ("entropy", kept["accuracy"], kept["flops"])
    for options, said in (
        (["--policy", "confidence"], "--policy sets a threshold that meets a budget: add --target-flops"),
        (["--target-flops", "60%", "--policy", "actor"], "'actor' is no rule that exits can follow untrained"),
    ):
        done = in_process("evaluate", "runs/leaving", *options, cwd=workplace)
        assert (done.returncode, said in done.stderr) == (2, True)
    done = in_process("evaluate", "runs/routed", "--target-flops", "60%", "--policy", "confidence", cwd=workplace)
    assert (done.returncode, "has no exits alone" in done.stderr) == (2, True)


def test_a_network_with_exits_from_end_to_end(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--junctions",
        "skip,exit", "--exits", "layer2.2", "--policy", "pragmatic", "--epochs", "1", "--set", "training.batch_size=16",
        "--name", "exits", "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [each["after"] for each in record["exits"]] == ["layer2.2", "end"]
    assert record["routes"]["units"] == 9
    assert len(record["routes"]["run_rate"]) == 10
    done = in_process("evaluate", "runs/exits", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "exit after layer2.2: answers" in done.stdout
    done = in_process("report", "runs/exits", "runs/routed", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    files = ["pictures/accuracy-against-cost.svg", "pictures/dataflow.svg", "pictures/training-exits.svg"]
    assert json.loads(done.stdout)["files"] == files
    assert all((workplace / file).stat().st_size > 1000 for file in files)
    done = in_process("export", "runs/exits", "--out", "small", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    done = in_process("predict", "small", "images/test/class1/0.png", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr


def test_an_exported_file_is_verified_and_predicts_as_the_run_does(workplace: Path) -> None:
    done = in_process(
        "export", "runs/routed", "--format", "onnx", "--native", "--out", "onnx", "--verify", "images/test", "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {name: found["images"] for name, found in report["verified"].items()} == {
        "single.onnx": 36,
        "batch.onnx": 36,
    }
    said = []
    for model in ("runs/routed", "onnx"):
        done = in_process("predict", model, "images/test/class1", "--top", 2, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout)["images"])
        assert len(said[-1]) == 12
        assert [len(image["top"]) for image in said[-1]] == [2] * 12
    for image, *others in zip(*said, strict=True):
        for other in others:
            assert other["route"] == image["route"]
            assert other["top"][0]["class"] == image["top"][0]["class"]
            assert other["flops"] == image["flops"]
    done = in_process("predict", "runs/routed", "images/test/class1/0.png", cwd=workplace)
    assert re.fullmatch(
        r"images/test/class1/0\.png: class\d [\d.]+%  \(\d of 9 units, \d+% of the MACs\)\n", done.stdout
    )


@pytest.mark.parametrize(("junctions", "columns"), [("branch", 9), ("skip,branch,cascade", 19)])
def test_branches_and_cascades_from_end_to_end(workplace: Path, junctions: str, columns: int) -> None:
    name = junctions.replace(",", "-")
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "70%", "--junctions",
        junctions, "--narrow", "30%", "--epochs", "1", "--set", "training.batch_size=16", "--name", name, "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["junctions"] == junctions.split(",")
    assert len(record["routes"]["run_rate"]) == columns
    done = in_process("export", f"runs/{name}", "--out", f"small-{name}", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    done = in_process("predict", f"small-{name}", "images/test/class1/0.png", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr


def test_the_command_writes_a_report_from_what_is_recorded(workplace: Path) -> None:
    done = in_process("report", "runs/routed", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    files = [workplace / name for name in json.loads(done.stdout)["files"]]
    pictures = ["accuracy-against-cost.svg", "training.svg", "routes.svg", "units.svg", "lengths.svg"]
    names = ["report.md", *pictures, "index.html"]
    assert [file.name for file in files] == names
    before = [file.read_bytes() for file in files]
    assert in_process("report", "runs/routed", cwd=workplace).returncode == 0
    assert [file.read_bytes() for file in files] == before
