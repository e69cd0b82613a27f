"""What holds for every test: no network, one thread a process; and what many of them share."""

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from routekit.export.onnx.piece import Exporter

# The networks are tiny: more threads only wait for each other, and fight with whatever else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def exporter() -> "Exporter":
    """Export each kind of the toys' blocks to ONNX once for all tests: that takes torch seconds."""
    from routekit.export.onnx.piece import Exporter

    return Exporter()
