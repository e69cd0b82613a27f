"""`export --format passes`: plain graphs in the hands of their users, in float32 and in int8."""

import json
from pathlib import Path

import pytest

from tests.cli.command import FAST, in_process, routekit

MAKE = ["--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 0.5, "--narrow", "30%"]


@pytest.fixture(scope="module")
def cascade(workplace: Path) -> Path:
    made = ["convert", "resnet20", *MAKE, "--junctions", "cascade", "--name", "passes", *FAST]
    done = in_process(*made, cwd=workplace)
    assert done.returncode == 0, done.stderr
    return workplace


def test_in_float32_they_are_the_network(cascade: Path) -> None:
    export = ["export", "runs/passes", "--out", "plain", "--format", "passes", "--verify", "images/test", "--json"]
    done = in_process(*export, cwd=cascade)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["files"]) == ["pass-0.onnx", "pass-1.onnx"]
    assert report["verified"]["plain"]["images"] == 36
    # As a process of its own: its sessions share one pool of threads.
    done = routekit("predict", "plain", "images/test", "--json", cwd=cascade)
    assert done.returncode == 0, done.stderr
    answers = [each["top"][0]["class"] for each in json.loads(done.stdout)["images"]]
    done = in_process("predict", "runs/passes", "images/test", "--json", cwd=cascade)
    assert answers == [each["top"][0]["class"] for each in json.loads(done.stdout)["images"]]


def test_in_int8_they_are_nearly(cascade: Path) -> None:
    export = ["export", "runs/passes", "--out", "plain", "--format", "passes", "--force", "--precision", "int8"]
    # As a process of its own: the quantiser opens sessions, too.
    done = routekit(*export, "--calibrate", "images/train", "--verify", "images/test", "--json", cwd=cascade)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agreement"] > 0.8
    done = in_process("export", "runs/passes", "--out", "plain", "--format", "onnx", "--force", cwd=cascade)
    assert done.returncode == 0, done.stderr
    assert not list((cascade / "plain").glob("pass-*"))  # they would be found in the place of the new files


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "passes", "--precision", "int8"], "--precision int8 and --calibrate DIR go together"),
        (["--format", "passes", "--calibrate", "images"], "--precision int8 and --calibrate DIR go together"),
        (["--format", "passes", "--precision", "int4"], "unknown precision 'int4'"),
        (["--format", "onnx", "--precision", "int8", "--calibrate", "images"], "--precision int8 is for"),
        (["--format", "passes", "--precision", "int8", "--calibrate", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_quantised(options: list[str], says: str, cascade: Path) -> None:
    done = in_process("export", "runs/passes", "--out", "x", *options, cwd=cascade)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_decides_at_units_has_no_passes(cascade: Path) -> None:
    done = in_process("export", "runs/routed", "--out", "x", "--format", "passes", cwd=cascade)
    assert done.returncode == 1
    assert "use the format onnx" in done.stderr
