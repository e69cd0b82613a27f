"""A ladder as a user makes it: forms trained at once, passes chosen for a time, a loss, a cost; aimed again."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from routekit.formats.checkpoint import load
from tests.cli.command import FAST, in_process

MAKE = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", *FAST]


def made(*arguments: object, cwd: Path) -> dict[str, Any]:
    done = in_process(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def work(workplace: Path) -> Path:
    forms = ["--forms", "30%,l1:50%", "--epochs", 1, "--threads", 1]
    record = made(*MAKE, "--target-flops", "60%", *forms, "--name", "ladder", cwd=workplace)
    assert record["method"] == "ladder"
    return workplace


@pytest.fixture(scope="module")
def exported(work: Path) -> Path:
    """The run, aimed for onnxruntime: its forms are exported, quantised and timed."""
    shutil.copytree(work / "runs/ladder", work / "exported")
    made("aim", "exported", "--target-speedup", 1.01, "--runtime", "onnx", "--batch", 1, cwd=work)
    return work / "exported"


@pytest.fixture
def run(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "ladder")
    return tmp_path / "ladder"


def test_forms_are_trained_and_the_dense_network_stays(work: Path) -> None:
    forms = json.loads((work / "runs/ladder/forms/forms.json").read_text())["macs"]
    assert list(forms) == ["0-depgraph-30pct", "1-l1-50pct", "dense"]
    whole = forms["dense"]
    assert [round(macs / whole, 1) for macs in forms.values()] == [0.3, 0.5, 1.0]
    before, after = load(work / "runs/dense").state_dict(), load(work / "runs/ladder/forms/dense").state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_budget_of_multiply_adds_is_kept_on_validation_images(work: Path) -> None:
    record = json.loads((work / "runs/ladder/record.json").read_text())
    assert record["flops"]["target"] == pytest.approx(0.6 * record["flops"]["dense"])
    points = json.loads((work / "runs/ladder/frontier.json").read_text())["points"]
    chosen = {"passes": [f"{each['form']} {each['precision']}" for each in record["passes"]]}
    chosen |= {"thresholds": record["thresholds"], "average": record["average"]}
    matching = [point for point in points if point["passes"] == chosen["passes"]]
    assert matching
    assert record["chosen"]["images"] == 36
    assert record["time"]["runtime"] == "torch"
    # What costs more, and is not better, is not there; but each pass alone is.
    sequences = [point for point in points if len(point["passes"]) > 1]
    assert [point["macs"] for point in points] == sorted(point["macs"] for point in points)
    rights = [point["validation_accuracy"] for point in sequences]
    assert rights == sorted(rights)
    assert sum(len(point["passes"]) == 1 for point in points) == 3


def test_the_network_of_a_run_is_the_one_that_was_measured(work: Path) -> None:
    """In torch and float32, the record's accuracy and cost are those of `network/`."""
    import routekit
    from routekit.evaluation.answers import unpack

    record = json.loads((work / "runs/ladder/record.json").read_text())
    found = routekit.evaluate(routekit.load(work / "runs/ladder"), work / "images")
    assert found.accuracy == record["accuracy"]["routed"]
    assert found.cost == pytest.approx(record["flops"]["realized"])
    assert np.array_equal(found.correct.numpy(), unpack(record["right"], 36).numpy())


def test_aimed_again_in_another_runtime(run: Path, work: Path) -> None:
    # 36 images are no whole number of batches of 8.
    record = made("aim", run, "--target-speedup", 1.05, "--batch", 8, "--threads", 1, cwd=work)
    assert (record["time"]["batch"], record["time"]["calls"]) == (8, 5)
    assert record["time"]["target_ms"] > 0
    assert {"mean_ms", "p50", "p95", "p99", "dense_ms", "speedup"} <= {*record["time"]}
    assert (run / "passes/pass-0.onnx").exists()
    again = made("evaluate", run, cwd=work)
    for key in ("accuracy", "flops", "routes", "passes", "right"):
        assert again[key] == record[key]
    # What is not given is as it was: the runtime, one thread.
    record = made("aim", run, "--max-drop", 60, "--precision", "int8", cwd=work)
    assert [each["precision"] for each in record["passes"]] == ["int8"] * len(record["passes"])
    assert record["time"]["threads"] == 1
    assert 0 <= record["chosen"]["chance"] <= 1
    predicted = made("predict", run, "images/test", cwd=work)["images"]
    classes = [each["top"][0]["class"] for each in predicted]
    right = np.mean([each == Path(image["image"]).parent.name for each, image in zip(classes, predicted, strict=True)])
    assert right == pytest.approx(record["accuracy"]["routed"])
    # The plan says what the run holds now.
    record = made("aim", run, "--target-flops", "100%", "--runtime", "torch", "--precision", "auto", cwd=work)
    assert not (run / "passes").exists()
    assert record["flops"]["realized"] <= 1.3 * record["flops"]["dense"]


def test_the_report_of_a_ladder_is_of_its_last_choice(run: Path, work: Path) -> None:
    before = (run / "frontier.json").read_text()
    for aim in (["--target-flops", "100%", "--runtime", "torch"], ["--target-flops", "40%"]):
        record = made("aim", run, *aim, cwd=work)
        files = made("report", run, cwd=work)["files"]
        explored = json.loads((run / "explored.json").read_text())
        (chosen,) = [each for each in explored["settings"] if each["chosen"]]
        assert chosen["passes"] == [f"{each['form']} {each['precision']}" for each in record["passes"]]
        assert (chosen["accuracy"], chosen["macs"]) == (record["accuracy"]["routed"], record["flops"]["realized"])
        # Each form alone is a setting that is known by its answers: in 36 images, all of its own cost.
        macs = json.loads((run / "forms/forms.json").read_text())["macs"]
        for each in explored["settings"]:
            assert sum(each["stops"]) == pytest.approx(1)
            if len(each["passes"]) == 1:
                assert each["macs"] == macs[each["passes"][0].rpartition(" ")[0]]
        assert "<h2>What changed for each class</h2>" in Path(work / files[-1]).read_text()
    assert (run / "frontier.json").read_text() != before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target-ms", 1, "--target-flops", "50%"], "given: --target-flops and --target-ms"),
        (["--target-ms", 1, "--target-speedup", 2], "given: --target-ms and --target-speedup"),
        (["--target-ms", 0], "--target-ms: Input should be greater than 0"),
        (["--target-ms", 0.000001], "out of reach"),
        (["--target-speedup", 1000], "out of reach"),
        (["--max-drop", 0.5], "36 validation images tell accuracies apart to about 3.7 points"),
        (["--target-ms", 9, "--threads", 999], "--threads 999: this machine has"),
        (["--target-ms", 9, "--precision", "bf16"], "passes in onnx are fp32 or int8"),
        (["--target-ms", 9, "--runtime", "onx"], "--runtime"),
        (["--target-ms", 9, "--max-size", "1kB"], "the smallest form has"),
        (["--target-ms", 9, "--max-size", "much"], "no size"),
    ],
)
def test_bad_aims(options: list[str], says: str, run: Path, exported: Path, work: Path) -> None:
    done = in_process("aim", run, *options, cwd=work)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error")]) == 1
    # Nothing is lost: the run is as it was.
    assert (run / "record.json").read_bytes() == (exported / "record.json").read_bytes()
    assert (run / "run.yaml").read_bytes() == (exported / "run.yaml").read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target-ms", 1, "--target-flops", "50%"], "given: --target-flops and --target-ms"),
        (["--target-ms", 1, "--junctions", "skip"], "--junctions"),
        (["--target-ms", 1, "--method", "l1"], "--target-ms is for a ladder"),
        (["--target-ms", 1, "--forms", "120%"], "no smaller form"),
        (["--target-ms", 1, "--forms", "l2:20%"], "l2"),
        (["--target-ms", 0.000001, "--precision", "fp32"], "out of reach"),
        (["--max-drop", 0.5], "too coarse for that; 500 would do"),
        (["--target-flops", "50%", "--smaller", "runs/routed", "--forms", "50%"], "decides something"),
        (["--target-flops", "50%", "--runtime", "onnx"], "--runtime is for a ladder"),
        (["--target-flops", "50%", "--forms", "50%", "--method", "l1"], "--forms is for a ladder"),
        (["--max-drop", 9, "--runtime", "torch", "--precision", "int8"], "passes in torch are fp32 or bf16"),
    ],
)
def test_what_cannot_be_converted(options: list[str], says: str, work: Path) -> None:
    """It is said before anything is trained."""
    done = in_process(*MAKE, *options, "--name", "not", cwd=work)
    assert not (work / "runs/not").exists()
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


def test_a_run_that_is_no_ladder(work: Path) -> None:
    done = in_process("evaluate", "runs/ladder", "--target-flops", "50%", cwd=work)
    assert (done.returncode, "routekit aim" in done.stderr) == (2, True)
    done = in_process("aim", "runs/routed", "--target-ms", 1, cwd=work)
    assert (done.returncode, "is no ladder" in done.stderr) == (2, True)


def test_aimed_in_python(run: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import routekit
    from routekit.errors import InputError

    monkeypatch.chdir(work)
    record = routekit.aim(run, max_drop=60.0, precision="fp32")
    assert [each["precision"] for each in record["passes"]] == ["fp32"] * len(record["passes"])
    with pytest.raises(InputError, match=r"aim\.speed: no such setting: .*speedup"):
        routekit.aim(run, speed=3)


def test_nothing_is_trained_in_no_epochs(work: Path) -> None:
    """Then the forms are the network itself, at a lower resolution."""
    views = ["--forms", "40%", "--epochs", 0, "--threads", 1]
    record = made(*MAKE, "--max-drop", 50, "--runtime", "torch", *views, "--name", "views", cwd=work)
    forms = json.loads((work / "runs/views/forms/forms.json").read_text())["macs"]
    assert list(forms) == ["0-resolution-40pct", "dense"]
    assert record["epochs"] == 0


def test_images_that_have_changed_are_answered_anew(run: Path, work: Path) -> None:
    """Answers are kept for the images that were there."""
    from routekit.cost.aim import Aim
    from routekit.data.sources import load_data
    from routekit.pipeline.machine import Hooks
    from routekit.pipeline.rungs import Ladder

    data = load_data(str(work / "images"), preprocessing=load(run / "forms/dense").spec.preprocessing)
    said: list[str] = []
    ladder = Ladder(run / "forms", data, Hooks(say=said.append))
    rungs = ladder.rungs(Aim(ms=1.0))
    before = ladder.logits(rungs, "onnx")
    assert not said
    order = torch.arange(len(data.val)).flip(0)
    turned = Ladder(run / "forms", replace(data, val=data.val.subset(order)), Hooks(say=said.append))
    after = turned.logits(rungs, "onnx")
    assert len(said) == len(rungs)
    assert torch.equal(after["val"], before["val"][:, order])


def test_who_is_interrupted_while_a_choice_is_written_can_go_on(
    run: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("routekit.pipeline.aim.write_run", interrupt)
        assert in_process("aim", run, "--max-drop", 50, cwd=work).returncode == 130
    done = in_process("evaluate", run, cwd=work)
    assert (done.returncode, "not a finished run" in done.stderr) == (2, True)
    record = made("aim", run, cwd=work)
    assert record["aim"].startswith("the fastest that loses at most 50 points")
    assert made("evaluate", run, cwd=work)["accuracy"] == record["accuracy"]


def test_a_runtime_that_is_not_installed(run: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = in_process("aim", run, "--target-ms", 9, "--runtime", "openvino", cwd=work)
    assert (done.returncode, "pip install 'routekit[openvino]'" in done.stderr) == (2, True), done.stderr


def test_times_of_another_machine_are_measured_again(run: Path, work: Path) -> None:
    file = run / "forms/times.json"
    (table,) = json.loads(file.read_text())
    table["where"]["machine"] = "another one"
    table["ms"] = {name: {"1": 1e6} for name in table["ms"]}
    file.write_text(json.dumps([table]))
    done = in_process("aim", run, "--target-speedup", 1.01, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "timed on another machine" in done.stderr
    other, own = json.loads(file.read_text())
    assert other == table
    assert own["where"]["machine"] != "another one"
    assert all(ms["1"] < 1e6 for ms in own["ms"].values())
