"""What a network does at other settings is what it does when it is set so; and who changed the answer."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.answers import pack
from routekit.evaluation.evaluate import evaluate
from routekit.files import make_folder
from routekit.pipeline.explore import Explored, changes_of, dense_right, digest, settings_of, settings_of_ladder
from routekit.pipeline.machine import Hooks
from routekit.pipeline.report import report_run
from routekit.pipeline.rungs import Ladder
from routekit.report.settings import Setting
from tests.report.test_run_report import record
from tests.toy import small_branches, toy_data, toy_exits, toy_images, toy_routed


def measured(network: Any) -> dict[str, Any]:
    """What a record says of a network."""
    found = evaluate(network, toy_data().test, CostTable.measure(network))
    return record(accuracy={"dense": 0.9, "routed": found.accuracy}, flops=record()["flops"] | {"realized": found.cost})


def test_each_setting_is_what_the_network_does_at_its_thresholds() -> None:
    network, data = toy_exits(seed=3, skips=False), toy_data()
    costs = CostTable.measure(network)
    settings = settings_of(network, data, costs, measured(network), [])
    assert len(settings) > 8
    assert sum(each.chosen for each in settings) == 1
    assert [each.macs for each in settings] == sorted(each.macs for each in settings)
    assert settings[0].stops == [1.0, 0.0, 0.0]  # none goes on, and in the end all do
    assert settings[-1].stops == [0.0, 0.0, 1.0]
    for setting in settings[1:-1:4]:
        network.set_bias(torch.tensor(setting.thresholds))
        found = evaluate(network, data.test, costs)
        # An image on the very edge may go either way.
        assert found.cost == pytest.approx(setting.macs, rel=0.02)
        assert found.accuracy == pytest.approx(setting.accuracy, abs=0.011)
        assert evaluate(network, data.val, costs).accuracy == pytest.approx(setting.validation, abs=0.011)


def test_time_is_known_where_all_lengths_were_timed() -> None:
    network, data = toy_exits(seed=3, skips=False), toy_data()
    costs = CostTable.measure(network)
    # An exit after the first and the third of four units.
    lengths = [SimpleNamespace(units=units, milliseconds=ms) for units, ms in ((1, 1.0), (3, 2.0), (4, 4.0))]
    for setting in settings_of(network, data, costs, measured(network), lengths):
        if not setting.chosen:
            first, second, last = setting.stops
            assert setting.ms == pytest.approx(first + 2 * second + 4 * last)
    some = settings_of(network, data, costs, measured(network), lengths[:2])
    assert some[0].ms == pytest.approx(1.0)
    assert some[-1].ms is None


@pytest.mark.parametrize("network", [toy_routed(), toy_exits(), small_branches()], ids=["skip", "both", "branch"])
def test_where_units_decide_no_threshold_moves_alone(network: Any) -> None:
    assert settings_of(network, toy_data(), CostTable.measure(network), measured(network), []) == []


# Two passes and four test images of two classes: the smaller pass is sure of the first two and right of three.
LABELS = torch.tensor([0, 1, 0, 1])
SMALL = torch.tensor([[3.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.5, 0.0]])
LARGE = torch.tensor([[4.0, 0.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    forms = tmp_path / "forms"
    for name, logits in (("0-l1-25pct", SMALL), ("dense", LARGE)):
        (forms / name).mkdir(parents=True)
        save_file({"test": logits, "test labels": LABELS}, forms / name / "torch-fp32.safetensors")
    (forms / "forms.json").write_text('{"macs": {"0-l1-25pct": 100.0, "dense": 400.0}, "seconds": 1}')
    points = [
        ("0-l1-25pct", [], 100.0, 0.75, 0.75), ("0-l1-25pct,dense", [0.7], 250.0, 0.8, 0.75),
        ("0-l1-25pct,dense", [0.8], 300.0, 0.7, 0.5), ("dense", [], 400.0, 0.9, 0.75),
    ]  # fmt: skip
    listed = ",".join(
        f'{{"passes": {str([each + " fp32" for each in passes.split(",")]).replace(chr(39), chr(34))}, "thresholds": '
        f'{thresholds}, "average": false, "macs": {macs}, "mean_macs": {macs}, "bytes": 1, "validation_accuracy": '
        f'{val}, "test_accuracy": {test}}}'
        for passes, thresholds, macs, val, test in points
    )
    (tmp_path / "frontier.json").write_text(f'{{"unit": "macs", "runtime": "torch", "points": [{listed}]}}')
    data = SimpleNamespace(test=SimpleNamespace(labels=LABELS))
    return Ladder(forms, data, Hooks())  # type: ignore[arg-type]


LADDER = record(
    method="ladder", images=4, average=False, thresholds=[], exits=[], accuracy={"dense": 0.75, "routed": 0.75},
    passes=[{"form": "dense", "precision": "fp32"}], chosen={"accuracy": 0.9, "dense_accuracy": 0.9},
    time={"runtime": "torch", "mean_ms": 4.0, "dense_ms": 4.0, "target_ms": None},
    flops=record()["flops"] | {"realized": 400.0},
)  # fmt: skip


def test_the_settings_of_a_ladder_by_hand(ladder: Ladder) -> None:
    """The third point is dearer than the second and worse, the last one is the chosen one."""
    small, both, whole = settings_of_ladder(ladder.folder.parent, LADDER, ladder)
    assert (small.passes, small.macs, small.stops) == (["0-l1-25pct fp32"], 100.0, [1.0])
    # The confidences of the smaller pass are 0.95, 0.95, 0.73 and 0.62: one of four images goes on.
    assert (both.stops, both.macs, both.thresholds, both.validation) == ([0.75, 0.25], 200.0, [0.7], 0.8)
    assert (whole.chosen, whole.stops, whole.macs, whole.ms) == (True, [1.0], 400.0, 4.0)
    assert both.ms is None


def test_a_ladder_whose_answers_are_gone(ladder: Ladder) -> None:
    (ladder.folder / "dense" / "torch-fp32.safetensors").unlink()
    _, both, _ = settings_of_ladder(ladder.folder.parent, LADDER, ladder)
    assert (both.stops, both.macs, both.accuracy) == ([], 250.0, 0.75)  # as the frontier has it
    assert dense_right(ladder, "torch") is None
    (ladder.folder.parent / "frontier.json").write_text('{"runtime": "torch", "points": [{"passes": 3}]}')
    with pytest.raises(InputError, match="is damaged"):
        settings_of_ladder(ladder.folder.parent, LADDER, ladder)
    (ladder.folder.parent / "frontier.json").unlink()
    assert settings_of_ladder(ladder.folder.parent, LADDER, ladder) == []


def test_images_that_changed_their_answer() -> None:
    images = toy_images(6)  # red, green, blue, red, green, blue
    right = torch.tensor([1, 1, 0, 0, 1, 1]).bool()
    dense = torch.tensor([1, 0, 1, 1, 1, 1]).bool()
    made = record(images=6, right=pack(right), dense_right=pack(dense))
    found = changes_of(made, images, None)
    assert found is not None
    assert (found.lost, found.gained) == (2, 1)
    assert [each.name for each in found.lost_examples] == ["blue", "red"]
    assert [each.name for each in found.gained_examples] == ["green"]
    assert found.by_class == {
        "class": ["red", "green", "blue"], "images": [2, 2, 2], "right": [1, 2, 1], "dense_right": [2, 1, 2]
    }  # fmt: skip
    # Of other images nothing is said; nor where the dense network's answers are not known.
    assert changes_of(made, toy_images(9), None) is None
    other = replace(images, labels=images.labels.roll(1))
    assert changes_of(made | {"by_class": found.by_class}, other, None) is None
    assert changes_of(record(images=6, right=pack(right)), images, None) is None
    same = changes_of(record(images=6, right=pack(right)), images, dense)
    assert same == found


def test_answers_of_the_dense_network_of_a_ladder(ladder: Ladder) -> None:
    found = dense_right(ladder, "torch")
    assert found is not None
    assert found.tolist() == [True, True, False, True]


def test_a_run_that_is_reported_again_and_aimed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept for the record of which it is, and is found anew for another one."""
    run = tmp_path / "run"
    make_folder(run, "run")
    (run / "network").mkdir()
    static = record(method="l1", routes=record()["routes"] | {"unique": 1, "run_rate": {}})
    (run / "record.json").write_text(json.dumps(static))
    looks: list[Path] = []

    def look(path: Path) -> tuple[None, Explored]:
        looks.append(path)
        made = json.loads((run / "record.json").read_text())
        settings = [Setting(0.5, 1e6, chosen=True), Setting(0.6, 2e6)]
        return None, Explored(digest(made), settings, None)

    monkeypatch.setattr("routekit.pipeline.report.explore_run", look)
    *_, page = report_run(run, run / "report", "svg")
    assert "id=slider min=0 max=1" in page.read_text()
    report_run(run, run / "report", "svg")
    assert len(looks) == 1
    (run / "record.json").write_text(json.dumps(static | {"seed": 7}))
    report_run(run, run / "report", "svg")
    assert len(looks) == 2
    file = run / "explored.json"
    file.write_text(file.read_text().replace("true", "false"))
    with pytest.raises(InputError):
        report_run(run, run / "report", "svg")


def test_the_images_are_needed_only_for_what_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> None:
        raise InputError("no such folder of images")

    monkeypatch.setattr("routekit.pipeline.report.explore_run", gone)
    for name, unique in (("static", 1), ("routed", 5)):
        (tmp_path / name / "network").mkdir(parents=True)
        made = record(routes=record()["routes"] | {"unique": unique, "run_rate": {}})
        (tmp_path / name / "record.json").write_text(json.dumps(made))
    assert report_run(tmp_path / "static", tmp_path / "out", "svg")
    with pytest.raises(InputError, match="no such folder of images"):
        report_run(tmp_path / "routed", tmp_path / "out", "svg")
