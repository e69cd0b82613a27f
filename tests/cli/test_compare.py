"""`compare`: cells are done once, killed ones are gone on with, and the table says what came of them."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from routekit.bench.forms import torch_forms
from routekit.comparison import timing
from tests.cli.command import COMMAND, ENVIRONMENT, FAST, in_process, routekit

PLAN = [
    "compare", "resnet20", "--weights", "runs/dense", "--data", "images", "--budgets", "60%",
    "--epochs", "1", "--device", "cpu", *FAST[:-2],
]  # fmt: skip


METHODS = ["--methods", "dense,skip,firstk", "--smaller", "runs/dense"]


def compare(workplace: Path, *arguments: Any) -> Any:
    return in_process("compare", *arguments, "--device", "cpu", cwd=workplace)


def _out_of_memory(*_: Any) -> None:
    raise RuntimeError("out of memory")


def test_of_a_comparison_that_is_done_nothing_but_its_records_is_needed() -> None:
    kept = Path(__file__).parent.parent.parent / "reports" / "resnet20-junctions"
    done = in_process("compare", "--resume", kept, "--no-time", "--device", "cpu", cwd=kept.parent)
    assert done.returncode == 0, done.stderr
    assert "| 70% | branch |" in done.stdout


def test_a_comparison_from_its_plan_to_its_table(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "IMAGES", {1: 1, 64: 4})
    monkeypatch.setattr(timing, "CHOICE", 0.0)
    monkeypatch.setattr("routekit.execution.timing.LONGEST", 1)
    planned = in_process(*PLAN, *METHODS, "--name", "c", "--dry-run", cwd=workplace)
    assert planned.returncode == 0, planned.stderr
    assert "4 cells, 4 to do, about" in planned.stdout
    assert not (workplace / "comparisons").exists()

    done = in_process(*PLAN, *METHODS, "--name", "c", cwd=workplace)
    assert done.returncode == 0, done.stderr
    # Of another network there is nothing to go on with, and no plan to print; with --force nothing of it is done.
    other = ("compare", "resnet56", *PLAN[2:], "--methods", "dense", "--weights", "none", "--name", "c", "--dry-run")
    refused = in_process(*other, cwd=workplace)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "comparisons/c holds another comparison (network resnet20, not resnet56; " in refused.stderr
    assert "--resume" not in refused.stderr
    refused = in_process(*PLAN, *METHODS, "--name", "c", "--dry-run", cwd=workplace)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "go on with --resume comparisons/c" in refused.stderr
    anew = in_process(*PLAN, *METHODS, "--name", "c", "--dry-run", "--force", cwd=workplace)
    assert "4 cells, 4 to do, about" in anew.stdout, anew.stderr
    assert "On the frontier: " in done.stdout
    folder = workplace / "comparisons" / "c"
    cells = {path.name for path in (folder / "cells").iterdir()}
    assert cells == {"smaller0-seed0", "dense-seed0", "skip-60pct-seed0", "firstk-60pct-seed0"}
    assert "| ms an image, torch, batch 1 | ms an image, torch, batch 64 |" in done.stdout
    timings = (folder / "timings.json").read_text()
    assert set(json.loads(timings)["milliseconds"]) == cells

    # What is done is not done again; what was killed is, and comes out as it was.
    kept = folder / "cells" / "dense-seed0" / "record.json"
    lost = folder / "cells" / "skip-60pct-seed0" / "record.json"
    before, written = json.loads(lost.read_text()), kept.stat().st_mtime_ns
    lost.unlink()
    alone = compare(workplace, "--resume", "comparisons/c", "--cell", "firstk-60pct-seed0")
    assert alone.returncode == 0, alone.stderr
    assert not lost.exists()
    again = compare(workplace, "--resume", "comparisons/c", "--jobs", 2, "--json")
    assert again.returncode == 0, again.stderr
    rows = {row["method"]: row for row in json.loads(again.stdout)["rows"]}
    assert set(rows) == {"smaller0", "dense", "skip", "firstk"}
    # The network that was given is the one that all began with.
    assert rows["smaller0"]["share"] == 100
    assert rows["smaller0"]["accuracy"] == 100 * before["accuracy"]["dense"]
    assert (folder / "timings.json").read_text() == timings
    assert json.loads(lost.read_text())["accuracy"] == before["accuracy"]
    assert kept.stat().st_mtime_ns == written

    # A device that gives up while networks are timed costs no table.
    with monkeypatch.context() as failing:
        failing.setattr(timing, "time_cells", _out_of_memory)
        untimed = compare(workplace, "--resume", "comparisons/c")
    assert untimed.returncode == 1
    assert "nothing is timed: RuntimeError: out of memory; time again with" in untimed.stderr
    assert "| 60% | skip |" in untimed.stdout

    # In another runtime, it is timed again; torch stands in for that one here. Where passes are in int8, they answer.
    standing_in = {"torch": torch_forms, "onnx": torch_forms, "onnx-int8": timing.runtimes["onnx-int8"]}
    monkeypatch.setattr(timing, "runtimes", standing_in)
    timed = compare(workplace, "--resume", "comparisons/c", "--runtime", "torch,onnx,onnx-int8")
    assert timed.returncode == 0, timed.stderr
    assert "| ms an image, torch, batch 64 | ms an image, onnx, batch 1 |" in timed.stdout
    assert "| accuracy in onnx-int8, % |" in timed.stdout
    assert "skip-60pct-seed0 decides inside of a pass: it is not timed in onnx-int8" in timed.stderr
    accuracy = json.loads((folder / "timings.json").read_text())["accuracy"]
    assert {name for name, found in accuracy.items() if found} == cells - {"skip-60pct-seed0"}
    assert accuracy["dense-seed0"]["onnx-int8"] == pytest.approx(
        json.loads((folder / "cells/dense-seed0/record.json").read_text())["accuracy"]["routed"], abs=0.1
    )

    # It grows by what is added; --dry-run only tells.
    grown = compare(workplace, "--resume", "comparisons/c", "--methods", "randomk", "--budgets", "80%", "--dry-run")
    assert grown.returncode == 0, grown.stderr
    assert "8 cells, 4 to do, about" in grown.stdout
    assert "randomk" not in (folder / "plan.yaml").read_text()


def test_what_is_done_outlives_a_kill_and_a_full_disk(workplace: Path) -> None:
    methods = ["--methods", "firstk,skip", "--epochs", "8", "--name", "stopped", "--no-time"]
    cells = workplace / "comparisons" / "stopped" / "cells"
    state, record = cells / "skip-60pct-seed0" / "state.pt", cells / "skip-60pct-seed0" / "record.json"
    with subprocess.Popen(
        [*COMMAND, *PLAN, *methods],
        cwd=workplace,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        while not state.exists():  # the end of the cell's first epoch
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert running.wait(0.02) is None, "it ended before it was killed"
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert not record.exists()
    done = [path for path in (cells / "firstk-60pct-seed0").rglob("*") if path.is_file()]
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in done}
    assert cells / "firstk-60pct-seed0" / "record.json" in kept

    # No file can become as large as the state, as on a disk that is full.
    arguments = ["compare", "--resume", "comparisons/stopped", "--device", "cpu", "--no-time"]
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *COMMAND, *arguments]
    full = subprocess.run(limited, cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "cannot write comparisons/stopped/cells/skip-60pct-seed0/state.pt: File too large; what was" in full.stderr
    assert "1 cells failed; try them again with `routekit compare --resume comparisons/stopped`" in full.stderr
    assert "Traceback" not in full.stderr
    assert "| 60% | firstk |" in full.stdout
    assert not list(cells.rglob("*.partial"))

    again = in_process(*arguments, cwd=workplace)
    assert again.returncode == 0, again.stderr
    assert "| 60% | skip |" in again.stdout
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in done} == kept


def test_a_cell_that_fails_stops_no_other(workplace: Path) -> None:
    torn = workplace / "runs" / "torn"
    shutil.copytree(workplace / "runs" / "routed", torn)
    (torn / "network" / "network.safetensors").write_bytes(b"torn")
    methods = ["--budgets", "90%", "--methods", "idk,distributedk", "--smaller", "runs/torn", "--no-time"]
    done = in_process(*PLAN, *methods, "--name", "bad", cwd=workplace)
    assert done.returncode == 1
    assert re.search(r"idk-90pct-seed0: \S*runs/torn/network/network.safetensors is not as routekit wrote", done.stderr)
    assert "2 cells failed; try them again with `routekit compare --resume comparisons/bad`" in done.stderr
    assert "| 90% | distributedk |" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_comparison_is_gone_on_with_from_anywhere(workplace: Path, tmp_path: Path) -> None:
    done = in_process(*PLAN, "--budgets", "60%", "--methods", "firstk", "--no-time", "--name", "moved", cwd=workplace)
    assert done.returncode == 0, done.stderr
    resumed = ["compare", "--resume", workplace / "comparisons" / "moved", "--methods", "distributedk", "--no-time"]
    done = in_process(*resumed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| 60% | distributedk |" in done.stdout
    assert list(tmp_path.iterdir()) == []
    done = in_process("report", workplace / "comparisons" / "moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(workplace) not in (workplace / "comparisons" / "moved" / "report.md").read_text()


def test_a_cascade_ends_with_a_network_that_was_pruned_for_it(workplace: Path) -> None:
    plan = [*PLAN, "--budgets", "90%", "--methods", "l1+idk", "--smaller", "runs/routed", "--no-time"]
    done = in_process(*plan, "--name", "cut", cwd=workplace)
    assert done.returncode == 0, done.stderr
    cell = workplace / "comparisons" / "cut" / "cells" / "l1+idk-90pct-seed0"
    pruned, joined = cell / "last" / "record.json", cell / "record.json"
    trained, record = json.loads(pruned.read_text()), json.loads(joined.read_text())
    dense = json.loads((workplace / "routed.json").read_text())["flops"]["dense"]
    assert trained["flops"]["target"] == pytest.approx(0.9**0.5 * dense)
    assert record["flops"]["dense"] == trained["flops"]["dense"] == dense
    assert (record["method"], record["pruning"], record["epochs"]) == ("cascade", "l1", trained["epochs"])
    assert record["seconds"] > trained["seconds"]
    # Killed before it was joined, it is joined again, and not trained again.
    written = pruned.stat().st_mtime_ns
    joined.unlink()
    done = compare(workplace, "--resume", "comparisons/cut", "--no-time")
    assert done.returncode == 0, done.stderr
    assert json.loads(joined.read_text())["accuracy"] == record["accuracy"]
    assert pruned.stat().st_mtime_ns == written


def test_cells_are_carried_out_by_an_engine_of_two_processes(workplace: Path) -> None:
    methods = ["--methods", "firstk,distributedk", "--launcher", "ray", "--jobs", "2", "--no-time"]
    done = routekit(*PLAN, *methods, "--name", "ray", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["method"] for row in rows} == {"firstk", "distributedk"}
    # Who carries a cell out changes nothing of it.
    alone = in_process(*PLAN, "--methods", "firstk", "--name", "alone", "--no-time", "--json", cwd=workplace)
    (own,) = json.loads(alone.stdout)["rows"]
    assert own == next(row for row in rows if row["method"] == "firstk")
