"""What people see while a network is trained, and at the end of it."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from routekit_cli import output
from routekit_cli.carry_out import _ended

from routekit.training.log import Progress
from tests.report.test_run_report import record

LOSSES = {"classification": 1.234, "distillation": 0.034, "feature_distillation": 0.1, "heads": 1.0, "cost": 0.5}


@pytest.mark.parametrize("columns", [80, 200])
def test_the_time_left_is_seen_on_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system=None, soft_wrap=True, width=None)
    assert console.width == columns
    monkeypatch.setattr(output, "err", console)
    display = output.TrainingDisplay()
    clock = iter(range(0, 10_000, 10))  # each look at it is ten seconds later
    display.bar.get_time = lambda: float(next(clock))
    for step in (1, 101, 201):
        display(Progress(step, 4380, "route", LOSSES, 0.61, 0.6, 1234.0))
    console.print(display.bar.get_renderable())
    line = shown.getvalue().splitlines()[-1]
    assert len(line) <= columns
    assert line.startswith("route")
    assert "201/4380 steps" in line
    # 4,179 steps are left, at 100 steps in some tens of seconds.
    (left,) = [word for word in line.split() if word.count(":") == 2]
    assert left != "-:--:--"
    assert "cost 61.0% (wanted 60.0%)" in line
    assert ("1234 images/s  classification 1.234" in line) == (columns == 200)


def test_the_last_line_names_the_next_command() -> None:
    made = record(accuracy={"dense": 0.9, "routed": 0.85}, flops={"dense": 200.0, "target": 100.0, "realized": 101.0})
    assert _ended(made, Path("runs/my run")) == (
        "done: 85.00% of the test images right (dense: 90.00%) at 50.5% of the dense cost. Next: `routekit report "
        "'runs/my run' --open`"
    )
    assert "(dense" not in _ended(made | {"accuracy": {"dense": None, "routed": 0.85}}, Path("runs/x"))
    assert _ended(made | {"method": "dense"}, Path("runs/x")) == (
        "done: 85.00% of the test images right. Next: `routekit convert MODEL --weights runs/x`, with a budget"
    )


def test_the_next_command_starts_from_the_run_as_it_was_read(workplace: Path) -> None:
    made = record(accuracy={"dense": None, "routed": 0.85}, method="dense")
    line = _ended(made, workplace / "runs/dense")
    assert f"convert resnet20 --weights {workplace / 'runs/dense'} --data " in line
