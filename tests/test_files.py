"""Files and folders that several processes may want at once."""

import threading
from pathlib import Path

from routekit.files import alone


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
