"""Files and folders that several processes may want at once."""

import threading
from pathlib import Path

import pytest

from routekit.errors import InputError
from routekit.files import alone, busy, check_folder, make_folder, write_text


def test_one_at_a_time_is_at_work_on_a_folder(tmp_path: Path) -> None:
    told: list[str] = []
    order: list[str] = []
    waits = threading.Event()

    def say(sentence: str) -> None:
        told.append(sentence)
        waits.set()

    def second() -> None:
        with alone(tmp_path, say):
            order.append("second")

    other = threading.Thread(target=second)
    with alone(tmp_path, told.append):
        other.start()
        assert waits.wait(60)
        order.append("first")
    other.join(60)
    assert order == ["first", "second"]
    assert told == [f"waiting for another process that is at work on {tmp_path}"]
    with alone(tmp_path, told.append):  # and is given back
        pass
    assert len(told) == 1


def test_what_a_process_is_at_work_on_is_not_replaced(tmp_path: Path) -> None:
    make_folder(tmp_path, "comparison")
    write_text(tmp_path / "plan.yaml", "")
    cell = tmp_path / "cells" / "skip"
    cell.mkdir(parents=True)
    with alone(cell, lambda said: None):
        assert busy(tmp_path)
        with pytest.raises(InputError, match="another process is at work on"):
            check_folder(tmp_path, "comparison", force=True)
    assert not busy(tmp_path)
    check_folder(tmp_path, "comparison", force=True)
