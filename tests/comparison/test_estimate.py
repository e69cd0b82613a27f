"""How long a comparison takes: what is done tells, else a few steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from routekit.comparison import estimate
from routekit.comparison.estimate import estimate as guess
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.pipeline.machine import Machine
from tests.records import whole


def plan(**shared: object) -> Plan:
    values = {"model.name": "resnet20", "training.epochs": 2, "dense.epochs": 3} | shared
    return Plan(base="digits", shared=values, methods=["skip", "l1", "firstk"], budgets=["60%"], seeds=[0, 1])


def test_cells_that_are_done_tell_how_long_their_method_takes(tmp_path: Path) -> None:
    folder, planned = ComparisonFolder(tmp_path), plan()
    cells = list(planned.cells())
    for cell, seconds in zip(cells[:2], (10.0, 30.0), strict=True):  # skip and l1, of the first seed
        folder.of(cell).path.mkdir(parents=True)
        (folder.of(cell).path / "record.json").write_text(whole({"seconds": seconds}))
    # firstk, skip, l1, firstk: a method that is not done takes as long as those that are.
    assert guess(folder, planned, cells[2:], Machine()) == 20 + 10 + 30 + 20
    assert guess(folder, planned, cells[2:], Machine(), at_once=2) == (20 + 10 + 30 + 20) / 2
    assert guess(folder, planned, [], Machine()) == 0


@pytest.mark.parametrize(("weights", "epochs"), [("auto", 3), ("none", 3), ("mine.th", 0)])
def test_the_dense_network_counts_if_it_has_to_be_trained(
    weights: str, epochs: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "OVER", 1.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.th").touch()

    def repeat(step: Any, *, number: int, repeat: int) -> list[float]:
        step()
        return [float(number)] * repeat

    monkeypatch.setattr(estimate, "timeit", SimpleNamespace(repeat=repeat))
    planned = plan(**{"model.weights": weights})
    cells = list(planned.cells())
    alone, all_six = (guess(ComparisonFolder(tmp_path), planned, given, Machine()) for given in (cells[:1], cells))
    each = (all_six - alone) / 5
    assert alone == pytest.approx(each * (2 + epochs) / 2)
