"""`benchmark`: one table over all runtimes and precisions, as a user asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import FAST, in_process

SHORT = ["--images", 10, "--seconds", 0, "--threads", 1]
MAKE = ["--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 0.5, "--narrow", "30%"]


@pytest.fixture(scope="module")
def cascade(workplace: Path) -> Path:
    made = ["convert", "resnet20", *MAKE, "--junctions", "cascade", "--name", "cascade", *FAST]
    done = in_process(*made, cwd=workplace)
    assert done.returncode == 0, done.stderr
    return workplace


def measured(*arguments: object, cwd: Path) -> dict[str, Any]:
    done = in_process("benchmark", *arguments, *SHORT, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_cascade_and_its_dense_network_in_two_runtimes(cascade: Path) -> None:
    report = measured("runs/cascade", "--only", "onnx,openvino", "--batch", "4,1", "--html", "table.html", cwd=cascade)
    rows = {f"{row['runtime']} {row['precision']} {row['network']}": row for row in report["rows"]}
    assert list(rows) == [
        f"{runtime} {precision} {network}"
        for runtime in ("onnx", "openvino") for precision in ("fp32", "int8") for network in ("dense", "routed")
    ]  # fmt: skip
    assert report["images"] == 10
    assert report["environment"]["threads"] == 1
    for name, row in rows.items():
        assert set(row["times"]) == {"1", "4"}
        assert all(each["ms"] > 0 for each in row["times"].values())
        if "fp32" in name:
            assert row["agreement"] == 1.0
            assert row["accuracy"] == rows[name.replace("openvino", "onnx")]["accuracy"]
        else:
            assert row["bytes"] < 0.5 * rows[name.replace("int8", "fp32")]["bytes"]
    assert [each["batch"] for each in report["advice"]] == [4, 1]
    assert all(each["ship"] in rows and each["best"] in rows for each in report["advice"])
    assert "training images" in report["notes"][0]
    assert "<table>" in (cascade / "table.html").read_text()
    done = in_process("benchmark", "runs/cascade", "--html", "table.html", cwd=cascade)
    assert done.returncode == 2
    assert "table.html exists" in done.stderr


def test_what_cannot_be_had_is_a_row_that_says_why(cascade: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `openvino` is not installed, and units decide in the run.
    from routekit.bench import forms

    need = forms.need

    def missing(module: str, extra: str) -> Any:
        return need("no_such_module" if module == "openvino" else module, extra)

    monkeypatch.setattr(forms, "need", missing)
    done = in_process("benchmark", "runs/routed", "--only", "torch,openvino", "--batch", 2, *SHORT, cwd=cascade)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    there = [" ".join(line.split()[:3]) for line in lines if line.startswith("torch ")]
    assert there == ["torch fp32 dense", "torch fp32 routed", "torch bf16 dense"]
    (torch_line,) = (line for line in lines if line.startswith("not here: torch "))
    assert torch_line.startswith("not here: torch (bf16 routed): something decides inside of a pass")
    (line,) = (line for line in lines if line.startswith("not here: OpenVINO"))
    assert line.startswith("not here: OpenVINO (fp32 dense, fp32 routed, int8 dense, int8 routed): ")
    assert "is not installed: pip install" in line
    assert any(line.startswith("at batch 2, ship torch ") for line in lines)


def test_a_dense_run_has_no_routed_rows(cascade: Path) -> None:
    report = measured("runs/dense", "--only", "torch", "--batch", 1, cwd=cascade)
    assert [(row["precision"], row["network"]) for row in report["rows"]] == [("fp32", "dense"), ("bf16", "dense")]
    assert report["rows"][0]["agreement"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["runs/routed", "--batch", "0"], "'0' is no batch size"),
        (["runs/routed", "--batch", "99999999999"], "are too many to hold"),
        (["runs/routed", "--batch", ","], "give at least one batch size"),
        (["runs/routed", "--threads", "4096"], "--threads 4096: this machine has"),
        (["runs/routed", "--only", "tensort"], "unknown runtime 'tensort'"),
        (["runs/nowhere"], "runs/nowhere does not exist"),
        (["resnet20"], "resnet20 does not exist"),
        (["runs/routed", "--data", "digits"], "was trained for 3 classes, the data has 10"),
        (["runs/routed", "--html", "nowhere/page.html"], "there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, workplace: Path) -> None:
    done = in_process("benchmark", *arguments, cwd=workplace)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
