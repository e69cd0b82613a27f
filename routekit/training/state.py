"""The resumable state of a run. It is written atomically, so the last good one survives a kill at any moment."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from routekit.errors import InputError
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
    return state
