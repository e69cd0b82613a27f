"""Sessions of onnxruntime, and whose threads they compute with."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
import torch

# Whether all sessions of this process share one pool of threads ("1"). Passes run in turn: threads of their own would
# wait for work on the cores that the next pass needs. In a process with such a pool, onnxruntime opens no session
# without it: so `routekit predict` asks for it, and programs that import routekit may.
SHARED = "ROUTEKIT_SHARED_THREADS"


@cache
def _share(threads: int) -> None:
    onnxruntime.set_global_thread_pool_sizes(threads, 1)


def open_session(
    model: Path | bytes, *, threads: int = 0, batch: int | None = None, spins: bool = True, **settings: Any
) -> Any:
    """Open a session on the CPU.

    Args:
        model: The file, or its content.
        threads: The number of threads, where they are not shared; 0 for onnxruntime's choice.
        batch: The number of images in every call, if that is known.
        spins: Whether threads that wait for work keep their cores, which sessions that run in turn take from each
            other. It has no effect where threads are shared.
        **settings: Further attributes of `onnxruntime.SessionOptions`.

    Returns:
        The `onnxruntime.InferenceSession`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if os.environ.get(SHARED) == "1":
        _share(torch.get_num_threads())
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    if batch is not None:
        options.add_free_dimension_override_by_name("N", batch)
    for name, value in settings.items():
        setattr(options, name, value)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
