"""What holds for every test: no network, one thread a process; and what many of them share."""

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from routekit.formats.onnx.piece import Exporter

# The networks are tiny: more threads only wait for each other, and fight with whatever else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _torch_reads_its_operators_once() -> Iterator[None]:
    """Keep what torch builds anew for each export to ONNX, the same every time: half of what those tests wait for."""
    # It is private to torch: where it has moved, the tests are only slower.
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _passes_are_not_timed_for_long() -> Iterator[None]:
    """No test asserts a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("routekit.runtime.drive.SECONDS", 0.2)
        yield


@pytest.fixture(scope="session")
def exporter() -> "Exporter":
    """Export each kind of the toys' blocks to ONNX once for all tests: that takes torch seconds."""
    from routekit.formats.onnx.piece import Exporter

    return Exporter()
