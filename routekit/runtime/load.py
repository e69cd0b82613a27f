"""How a path becomes a runtime."""

import importlib
from pathlib import Path

import torch

from routekit.errors import InputError
from routekit.formats.checkpoint import load, read_about
from routekit.runtime.runtime import Runtime, TorchRuntime

# By the files that it opens, the first that fits: each needs a package that only its users have.
RUNTIMES = {
    "pass-*.onnx": "passes:open_passes",
    "*.onnx": "onnx:OnnxRuntime",
    "*.xml": "openvino:OpenVinoRuntime",
    "*.pt2": "program:ProgramRuntime",
}


def load_runtime(path: Path, device: torch.device | None = None) -> Runtime:
    """Open a run, a compact checkpoint, or what `routekit export` wrote in any format.

    Args:
        path: The folder, or one of the exported files.
        device: Where a run or a checkpoint computes; by default on the CPU, as exported files do.

    Returns:
        What answers images.

    Raises:
        InputError: It is none of these, or a package is not installed.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    for files, place in RUNTIMES.items():
        if path.match(files) or (path.is_dir() and any(path.glob(files))):
            module, _, name = place.partition(":")
            runtime: Runtime = getattr(importlib.import_module(f"routekit.runtime.{module}"), name)(path)
            return runtime
    if path.is_file():
        raise InputError(f"{path} is neither a run, a checkpoint nor an exported file")
    return TorchRuntime(load(path), read_about(path), device)
