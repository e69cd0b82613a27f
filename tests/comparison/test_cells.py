"""Cells that several processes carry out at once."""

from pathlib import Path
from typing import Any

import pytest

from routekit.comparison import cells
from routekit.comparison.cells import carry_out
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.errors import InputError
from routekit.pipeline.machine import Machine


@pytest.mark.parametrize("begun", [True, False])
def test_a_cell_that_another_process_began_meanwhile_is_gone_on_with(
    begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(base="digits", shared={"model.name": "resnet20"}, methods=["skip"], budgets=["60%"], seeds=[0])
    folder, (cell,) = ComparisonFolder(tmp_path), plan.cells()

    def run(_: Any, path: Path, *_machine: Machine) -> None:
        if begun:
            path.mkdir(parents=True)
            (path / "run.yaml").touch()
        raise InputError("it holds a run" if begun else "it is wrong")

    monkeypatch.setattr(cells, "begin", lambda *_: tmp_path / "start")
    monkeypatch.setattr(cells, "run", run)
    monkeypatch.setattr(cells, "resume", lambda path, machine: {"gone on with": path})
    if begun:
        assert carry_out(folder, plan, cell, Machine()) == {"gone on with": folder.of(cell).path}
    else:
        with pytest.raises(InputError, match="it is wrong"):
            carry_out(folder, plan, cell, Machine())
