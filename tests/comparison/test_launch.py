"""What a cell that is carried out beside others may use of the machine, and what is told of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from routekit.comparison import launch
from routekit.comparison.launch import share, visible_gpus
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.pipeline.machine import Hooks, Machine


def test_jobs_share_the_cores_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert share(0, 2, devices=[]) == share(1, 2, devices=[]) == {"OMP_NUM_THREADS": "3"}
    assert share(5, 8, devices=[]) == {"OMP_NUM_THREADS": "1"}, "more jobs than cores"


def test_threads_that_the_caller_chose_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share(1, 4, devices=[]) == {"OMP_NUM_THREADS": "5"}


def test_jobs_take_the_gpus_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7f")  # those that this process was given
    devices = visible_gpus()
    taken = [share(place, 4, devices)["CUDA_VISIBLE_DEVICES"] for place in range(4)]
    assert taken == ["2", "GPU-7f", "2", "GPU-7f"]


class LastFirst:
    """An engine that has done the last cell first, and whose worker dies of the cells of one method."""

    class RayError(Exception):
        pass

    exceptions = SimpleNamespace(RayError=RayError)

    def init(self, **_: Any) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2}}]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def remote(self, **_: Any) -> Any:
        return lambda call: SimpleNamespace(remote=lambda cell: cell)

    def wait(self, waiting: list[Cell], num_returns: int) -> tuple[list[Cell], list[Cell]]:
        return waiting[-num_returns:], waiting[:-num_returns]

    def get(self, cell: Cell) -> dict[str, str]:
        if cell.method == "skip":
            raise self.RayError("The worker died.\nIts log: ...")
        return {}


def test_an_engines_cells_are_told_as_they_are_done_and_a_dead_worker_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "need", lambda *_: LastFirst())
    told: list[str] = []
    machine = Machine("cpu", Hooks(say=told.append, warn=told.append))
    plan = Plan(base="default", shared={}, methods=["firstk", "skip", "l1"], budgets=["60%"], seeds=[0])
    cells = list(plan.cells())
    failures = launch.ray(ComparisonFolder(tmp_path), plan, cells, machine, 2)
    assert failures == {cells[1].name: "RayError: The worker died."}
    assert told == ["l1-60pct-seed0: done", "skip-60pct-seed0: RayError: The worker died.", "firstk-60pct-seed0: done"]
