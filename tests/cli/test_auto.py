"""`routekit auto`: what is measured is right, what is suggested works, and nothing is kept."""

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.command import FAST, in_process, write_tree
from tests.hostile.place import done, fingerprint

SMALL = ("--set", "data.input_size=32", "--set", "training.precision=fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    write_tree(folder / "images")
    start = ("resnet20", "--weights", "none", "--data", "images", "--epochs", 2, *SMALL, *FAST)
    done(folder, "finetune", *start, "--name", "dense")
    return folder


def test_what_is_reachable(place: Path) -> None:
    before = fingerprint(place)
    words = ("auto", "resnet20", "--weights", "runs/dense", "--data", "images", *SMALL, "--threads", 1)
    found = in_process(*words, "--images", 36, "--json", cwd=place)
    assert found.returncode == 0, found.stderr
    assert fingerprint(place) == before
    document = json.loads(found.stdout)
    record = json.loads((place / "runs/dense/record.json").read_text())
    dense, *others = document["rows"]
    assert dense["passes"] == ["dense fp32"]
    assert dense["test_accuracy"] == record["accuracy"]["dense"]
    assert dense["speedup"] == 1
    assert document["data"] == {"name": "images", "classes": 3, "train": 72, "val": 36, "test": 36}
    free = [row for row in others if "ms" in row]
    assert [row["ms"] for row in free] == sorted((row["ms"] for row in free), reverse=True)
    for row in free:
        assert row["validation_accuracy"] >= dense["validation_accuracy"] - row["max_drop"] / 100
        assert row["speedup"] == pytest.approx(dense["ms"] / row["ms"])
    one, full = (row for row in others if "epochs" in row)
    assert (one["epochs"], full["epochs"]) == (1, 6)
    assert full["minutes"] == pytest.approx(6 * one["minutes"])
    for row in others:  # as they are printed, they are right
        name, *command = shlex.split(row["command"])
        assert name == "routekit"
        planned = in_process(*command, "--dry-run", "--json", cwd=place)
        assert planned.returncode == 0, planned.stderr
        plan = json.loads(planned.stdout)["plan"]
        assert plan["training"]["epochs"] == row["settings"]["training.epochs"]
        assert plan["aim"]["max_drop"] == row["settings"]["aim.max_drop"]


def test_a_network_that_is_not_trained_is_told_so(place: Path) -> None:
    found = in_process("auto", "resnet20", "--weights", "none", "--data", "images", *SMALL, cwd=place)
    assert found.returncode == 2
    assert "routekit finetune" in found.stderr
    assert "--weights" in found.stderr
