"""Milliseconds of passes: what is counted, and in which process."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import routekit
from routekit.errors import InputError, RoutekitError
from routekit.runtime import drive
from routekit.runtime.drive import Clock, Passes, Place
from tests.toy import small_view


class Timed:
    """Calls that take the milliseconds that the images say: those of the first pixel of each, added up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, images: np.ndarray) -> float:
        self.sizes.append(len(images))
        return float(images[:, 0, 0, 0].sum())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "_milliseconds", lambda timed, images: timed.run(images))


@pytest.mark.usefixtures("told")
def test_the_mean_is_over_images_and_the_quantiles_over_calls() -> None:
    images = np.arange(1.0, 11.0).reshape(10, 1, 1, 1)

    def images_of(start: int, count: int) -> np.ndarray:
        return images[np.arange(start, start + count) % 10]

    (alone,) = drive._driven([Timed()], images_of, 10, 1)
    assert (alone["mean"], alone["p50"], alone["calls"]) == (5.5, 5.5, 10)
    # Whole batches: the last one is filled with the first images. 10/4, 26/4 and (19 + 3)/4 milliseconds an image.
    timed = Timed()
    (batches,) = drive._driven([timed], images_of, 10, 4)
    assert (batches["mean"], batches["p50"], batches["calls"]) == ((2.5 + 6.5 + 5.5) / 3, 5.5, 3)
    assert {*timed.sizes} == {4}


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("batch", [1, 3, 24, 48, 64, 100])
def test_passes_get_whole_batches(batch: int) -> None:
    timed = Timed()
    (found,) = drive._driven([timed], lambda start, count: np.zeros((count, 1, 1, 1)), 257, batch)
    assert {*timed.sizes} == {batch}
    assert found["calls"] == -(-257 // batch)


@pytest.mark.usefixtures("told")
def test_each_is_driven_over_all_images() -> None:
    first, second = Timed(), Timed()
    drive._driven([first, second], lambda start, count: np.zeros((count, 1, 1, 1)), 100, 1)
    # Two parts, of 64 and 36 images, each begun by a call that does not count.
    assert len(first.sizes) == len(second.sizes) == drive.WARM_UP + 102


@pytest.mark.usefixtures("told")
def test_passes_are_timed_in_turns_and_the_median_counts() -> None:
    # Three turns; the first call of each, here 100, does not count.
    taken = iter([100.0, 1.0, 2.0, 3.0, 4.0, 5.0] * 6)
    told = SimpleNamespace(run=lambda _: next(taken))
    assert drive._turns([told] * 2, [np.zeros(1)], seconds=0) == [3.0, 3.0]
    order: list[str] = []

    def named(name: str) -> SimpleNamespace:
        return SimpleNamespace(run=lambda _: order.append(name) or 0.0)

    drive._turns([named("A"), named("B")], [np.zeros(1)], seconds=0)
    assert "".join(order) == "".join(each * (drive.TURN + 1) for each in "ABBAAB")


def test_a_process_of_its_own_answers_and_fails_in_one_line(tmp_path: Path) -> None:
    network = routekit.convert(small_view(depth=8)).eval()
    routekit.export(network, tmp_path / "passes", kind="passes")
    size = network.spec.input_size
    images = torch.randint(256, (6, *size), dtype=torch.uint8)
    with Clock(Place("onnx", batch=2, threads=1)) as clock:
        (times,) = clock.time([Passes(tmp_path / "passes")], images, seconds=0.0)
        driven, again = clock.drive([Passes(tmp_path / "passes"), Passes(tmp_path / "passes")], images)
        assert {*times} == {1, 2}
        assert all(ms > 0 for ms in times.values())
        assert (driven.calls, again.calls) == (3, 3)
        assert driven.p50 <= driven.p95 <= driven.p99
        with pytest.raises(InputError, match="lacks the pass") as caught:
            clock.drive([Passes(tmp_path / "nowhere")], images)
        assert clock.process is not None
        clock.process.kill()
        with pytest.raises(RoutekitError, match="timing in onnx failed: exit code -9"):
            clock.drive([Passes(tmp_path / "passes")], images)
    assert "\n" not in str(caught.value)
