"""Cascades as a user makes them: of whole networks, of a network with itself, behind a smaller one."""

import json
import re
import shutil
from pathlib import Path

import torch

from routekit.formats.checkpoint import load, read_about, save_network
from routekit.junctions.again import look_again, look_once
from routekit.pipeline.record import write_record
from tests.cli.command import BENCH, in_process


def test_networks_are_joined_to_a_cascade(workplace: Path) -> None:
    done = in_process(
        "cascade", "runs/routed", "runs/dense", "--target-flops", "100%", "--average", "--name", "joined", "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["model"] == "resnet20 -> resnet20"
    assert record["flops"]["target"] == record["flops"]["dense"]
    assert 0 < record["routes"]["run_rate"]["past network 0"] < 1
    done = in_process("evaluate", "runs/joined", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    for key in ("accuracy", "flops", "routes"):
        assert again[key] == record[key]
    text = in_process("evaluate", "runs/joined", cwd=workplace).stdout
    assert re.search(r"\n  pass 1: answers [\d.]+%.*\n  the end: answers [\d.]+%", text)
    # Nothing was trained for that budget: another one takes another threshold.
    done = in_process("evaluate", "runs/joined", "--target-flops", "100%,150%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["curve"]
    assert curve[0]["flops"] == record["flops"]
    assert curve[1]["flops"]["realized"] > record["flops"]["realized"]
    done = in_process("evaluate", "runs/routed", "--target-flops", "50%", cwd=workplace)
    assert (done.returncode, "trained for one budget" in done.stderr) == (2, True)
    done = in_process("predict", "runs/joined", "images/test/class1/0.png", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    (predicted,) = json.loads(done.stdout)["images"]
    assert predicted["route"]
    text = in_process("predict", "runs/joined", "images/test/class1/0.png", cwd=workplace).stdout
    assert re.search(r"class\d [\d.]+%  \(\d of 9 units, on at [01] of 1 exits, \d+% of the MACs\)\n", text)
    # Of a network that decides nothing, nothing is told of that.
    assert "run rates" not in in_process("evaluate", "runs/dense", cwd=workplace).stdout
    text = in_process("predict", "runs/dense", "images/test/class1/0.png", cwd=workplace).stdout
    assert re.search(r"class\d [\d.]+%  \(\d+% of the MACs\)\n", text)
    for arguments, said in (
        (["runs/dense", "--target-flops", "90%"], "at least two networks"),
        (["runs/routed", "runs/dense", "--target-flops", "20%"], "out of reach"),
        (["runs/routed", "runs/dense", "--target-flops", "90%", "--name", "joined"], "--force"),
        (["runs/routed", "runs/absent", "--target-flops", "90%"], "runs/absent does not exist"),
        (["runs/routed", "runs/dense/network", "--target-flops", "90%"], "say which images with --data"),
        (["runs/routed", "runs/dense", "--target-flops", "90%", "--data-root", "x"], "--data-root goes with --data"),
    ):
        done = in_process("cascade", *arguments, cwd=workplace)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    done = in_process("export", "runs/joined", "--out", "compact-joined", cwd=workplace)
    assert done.returncode == 0, done.stderr
    done = in_process("evaluate", "compact-joined", "--data", "images", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    compact = json.loads(done.stdout)
    assert (compact["right"], compact["accuracy"]["dense"]) == (record["right"], record["accuracy"]["dense"])
    assert compact["flops"]["dense"] == record["flops"]["dense"]
    done = in_process(
        "export", "runs/joined", "--out", "joined", "--format", "onnx", "--verify", "images/test", "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"]["batch.onnx"]["images"] == 36
    done = in_process("predict", "joined", "images/test/class1/0.png", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["route"] == predicted["route"]
    done = in_process("bench", "runs/joined", *BENCH, "--batch", "1", cwd=workplace)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["ideal"] > 0
    assert row["speedup"] > 0


def test_a_cascade_of_a_network_with_itself_serves_every_budget(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "70%", "--junctions",
        "cascade", "--narrow", "25%", "--epochs", "1", "--set", "training.batch_size=16", "--name", "cascade", "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert "the narrow form: answers" in in_process("evaluate", "runs/cascade", cwd=workplace).stdout
    done = in_process("predict", "runs/cascade", "images/test/class1/0.png", cwd=workplace)
    assert re.search(r"class\d [\d.]+%  \(on at [01] of 1 exits, \d+% of the MACs\)\n", done.stdout)
    assert [each["after"] for each in record["exits"]] == ["narrow", "end"]
    assert record["routes"]["run_rate"].keys() == {"past narrow"}
    done = in_process("evaluate", "runs/cascade", "--target-flops", "50%,70%,90%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["curve"]
    assert curve[1]["flops"] == record["flops"]
    assert curve[1]["accuracy"] == record["accuracy"]
    spent = [each["flops"]["realized"] for each in curve]
    assert spent == sorted(spent)
    assert spent[0] < spent[2]
    kept = ["evaluate", "runs/cascade", "--data", "images", "--keep", "runs/kept", "--target-flops"]
    for wrong, says in ((["50%,70%"], "give one target"), ([], "")):
        done = in_process(*kept, *wrong, cwd=workplace)
        assert done.returncode == 2
        assert says in done.stderr
    done = in_process(*kept, "70%", cwd=workplace)
    assert done.returncode == 0, done.stderr
    # It costs what it was set to, wherever it is taken.
    again = json.loads(in_process("evaluate", "runs/kept", "--json", cwd=workplace).stdout)
    assert again["flops"] == json.loads((workplace / "runs" / "kept" / "record.json").read_text())["flops"]
    plans = [(workplace / "runs" / run / "run.yaml").read_text().splitlines() for run in ("cascade", "kept")]
    assert plans[0] == plans[1]
    assert in_process("export", "runs/kept", "--out", "kept", cwd=workplace).returncode == 0
    done = in_process("evaluate", "runs/cascade", "--target-flops", "20%", cwd=workplace)
    assert (done.returncode, "can cost from" in done.stderr) == (2, True)


def test_a_network_looks_again_where_that_pays(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "90%", "--junctions",
        "cascade,again", "--narrow", "25%", "--epochs", "1", "--set", "training.batch_size=16", "--name", "again",
        "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    found, answerers = record["second_look"], [each["after"] for each in record["exits"]]
    pays = found["again"] > found["once"]
    assert answerers == ["narrow", "end", "again"] if pays else ["narrow", "end"]
    assert record["junctions"] == (["cascade", "again"] if pays else ["cascade"])
    says = f"{100 * found['again']:.2f}% of the validation images are answered rightly with a second look"
    assert says in done.stderr
    # The network itself is as it was: it learned nothing, and what looks again has nothing to learn.
    run = workplace / "runs" / "again"
    dense, network = load(workplace / "runs" / "dense"), load(run)
    for name, tensor in dense.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], tensor), name
    # For another budget, it is tried again, and for its own it comes out as it did.
    done = in_process("evaluate", "runs/again", "--target-flops", "90%,60%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    same, cheaper = json.loads(done.stdout)["curve"]
    for key in ("second_look", "junctions", "right", "flops"):
        assert same[key] == record[key], key
    assert cheaper["second_look"].keys() == {"once", "again"}
    # Whatever these images say: one that looks again for any budget, as a user meets it.
    save_network(run / "network", look_again(look_once(network)), about=read_about(run))
    del record["second_look"]
    write_record(run, record)
    done = in_process("evaluate", "runs/again", "--target-flops", "60%,90%,100%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    curve = json.loads(done.stdout)["curve"]
    spent = [each["flops"]["realized"] for each in curve]
    assert spent == sorted(spent)
    done = in_process("evaluate", "runs/again", "--target-flops", "90%", "--keep", "runs/looking", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads((workplace / "runs" / "looking" / "record.json").read_text())
    assert record["right"] == curve[1]["right"]
    assert [each["after"] for each in record["exits"]] == ["narrow", "end", "again"]
    assert list(record["routes"]["run_rate"]) == ["past narrow", "past end"]
    assert record["exits"][2]["stops"] == record["routes"]["run_rate"]["past end"] > 0
    assert in_process("report", "runs/looking", cwd=workplace).returncode == 0
    assert "both looks: answers" in in_process("evaluate", "runs/looking", cwd=workplace).stdout
    done = in_process("predict", "runs/looking", "images/test/class1/0.png", cwd=workplace)
    assert re.search(r"class\d [\d.]+%  \(on at [012] of 2 exits, \d+% of the MACs\)\n", done.stdout)


def test_what_is_another_class_mirrored_is_not_looked_at_again(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "none", "--set", "dense.epochs=0", "--epochs", "0", "--data", "digits",
        "--junctions", "cascade,again", "--target-flops", "60%", "--name", "digits", "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "does not look again: images of digits are not mirrored in training" in done.stderr
    record = json.loads(done.stdout)
    assert (record["junctions"], "second_look" in record) == (["cascade"], False)
    assert "second_look: false" in (workplace / "runs" / "digits" / "run.yaml").read_text()


def test_a_smaller_network_answers_before_the_one_that_is_converted(workplace: Path) -> None:
    convert = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--smaller", "runs/routed",
        "--target-flops", "90%", "--epochs", "1", "--set", "training.batch_size=16", "--json",
    ]  # fmt: skip
    joined = ["cascade", "runs/routed", "--target-flops", "90%", "--average", "--json"]
    for prune, name, pruned in ([], "l1+cascade", "l1"), (["--prune", "none"], "cascade", None):
        done = in_process(*convert, *prune, cwd=workplace)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["run"] == f"runs/resnet20-images-routed+{name}-90pct-seed0"
        assert (record["method"], record.get("pruning"), record["epochs"]) == ("cascade", pruned, 1 if pruned else 0)
        # It is the cascade that can be joined by hand of the same networks.
        done = in_process(*joined, f"{record['run']}/last", "--name", f"by-hand-{name}", cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert {key: json.loads(done.stdout)[key] for key in ("accuracy", "flops", "right")} == {
            key: record[key] for key in ("accuracy", "flops", "right")
        }
    done = in_process("evaluate", record["run"], "--json", cwd=workplace)
    assert json.loads(done.stdout)["right"] == record["right"]
    shutil.copytree(workplace / "images", workplace / "others")
    for split in ("train", "val", "test"):
        (workplace / "others" / split / "class0").rename(workplace / "others" / split / "another")
    for wrong, says in (
        (["--target-flops", "10%"], "out of reach: this cascade can cost from"),
        (["--smaller", "runs/nowhere"], "runs/nowhere does not exist"),
        (["--junctions", "skip"], "a cascade of whole networks"),
        (["--method", "l1"], "a cascade of whole networks"),
        (["--narrow", "30%"], "--narrow is for forms of one network"),
        (
            ["--weights", "none", "--set", "data.input_size=16", "--target-flops", "3e7"],
            "runs/routed takes images of (3, 32, 32), not of (3, 16, 16)",
        ),
        (["--data", "others"], "was trained for other classes"),
        (["--weights", "none", "--set", "dense.epochs=0"], "would come from no dense one"),
    ):
        done = in_process(*convert, *wrong, "--name", "wrong", cwd=workplace)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
        assert not (workplace / "runs" / "wrong").exists()
    # What a run is made of is not deleted for it.
    done = in_process(*convert, "--name", "routed", "--force", cwd=workplace)
    assert (done.returncode, "which is in it" in done.stderr) == (2, True), done.stderr
    assert (workplace / "runs" / "routed" / "record.json").exists()


def test_exits_that_learned_are_set_to_other_budgets(workplace: Path) -> None:
    """By what is added to how much they prefer to go on: the more, the more images do."""
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "70%", "--junctions",
        "exit", "--exits", "layer1.2,layer2.2", "--epochs", "1", "--set", "training.batch_size=16", "--name", "varied",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = in_process("evaluate", "runs/varied", "--target-flops", "50%,70%,90%", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    least, mean, most = json.loads(done.stdout)["curve"]
    assert least["flops"]["realized"] <= mean["flops"]["realized"] <= most["flops"]["realized"]
    assert least["flops"]["realized"] < most["flops"]["realized"]
    on = [each["routes"]["run_rate"]["past layer1.2"] for each in (least, mean, most)]
    assert on == sorted(on)
