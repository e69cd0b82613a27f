"""The resumable state of a run. It is written atomically, so the last good one survives a kill at any moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.files import write_atomically
from routekit.manifest import verify

VERSION = 1


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save a state.

    Args:
        path: The file.
        state: Tensors, numbers and containers of them.

    Raises:
        RoutekitError: The file cannot be written.
    """
    # torch's own writer has no readable message for a full disk. So it writes to memory.
    buffer = BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    write_atomically(path, lambda stream: stream.write(buffer.getbuffer()))


@contextmanager
def reading_state(path: Path) -> Iterator[dict[str, Any]]:
    """Load a state, and say that it is damaged if it does not fit what takes it."""
    state = load_state(path)
    try:
        yield state
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} does not fit this run; start over with force=True: {first_line(error)}") from error


def load_state(path: Path) -> dict[str, Any]:
    """Load what `save_state` wrote, without running pickled code.

    Raises:
        InputError: The file is damaged, no state, or of another version.
    """
    verify(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is damaged or no state of a routekit run; start over with force=True") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise InputError(f"{path} was written by another version of routekit; start over with force=True")
    counts = [state.get(name) for name in ("step", "log")]
    weights = state.get("network")
    if not all(isinstance(count, int) and count >= 0 for count in counts) or not isinstance(weights, dict):
        raise InputError(f"{path} is damaged; start over with force=True")
    lost = [name for name, value in weights.items() if not (isinstance(value, Tensor) and value.isfinite().all())]
    if lost:
        raise InputError(f"{path} is damaged: {lost[0]} is no tensor of numbers; start over with force=True")
    return state
