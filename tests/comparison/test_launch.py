"""What a cell that is carried out beside others may use of the machine."""

import pytest
import torch

from routekit.comparison.launch import share, visible_gpus


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
