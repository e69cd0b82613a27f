"""What a cell that is carried out beside others may use of the machine."""

import pytest
import torch

from routekit.comparison.launch import share


def test_jobs_share_the_cores_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert share(0, 2, devices=0) == share(1, 2, devices=0) == {"OMP_NUM_THREADS": "3"}
    assert share(5, 8, devices=0) == {"OMP_NUM_THREADS": "1"}, "more jobs than cores"


def test_threads_that_the_caller_chose_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share(1, 4, devices=0) == {"OMP_NUM_THREADS": "5"}


def test_jobs_take_the_gpus_in_turns() -> None:
    assert [share(place, 4, devices=2)["CUDA_VISIBLE_DEVICES"] for place in range(4)] == ["0", "1", "0", "1"]
