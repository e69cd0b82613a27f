"""How a path becomes a runtime."""

from pathlib import Path

import torch

from routekit.errors import InputError
from routekit.runtime.runtime import Runtime, TorchRuntime


def load_runtime(path: Path, device: torch.device | None = None) -> Runtime:
    """Open a run, a compact checkpoint, or what `routekit export` wrote in any format. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if _holds(path, ".onnx"):
        from routekit.runtime.onnx import OnnxRuntime

        return OnnxRuntime(path)
    if _holds(path, ".xml"):
        from routekit.runtime.openvino import OpenVinoRuntime

        return OpenVinoRuntime(path)
    if _holds(path, ".pt2"):
        from routekit.runtime.program import ProgramRuntime

        return ProgramRuntime(path)
    if path.is_file():
        raise InputError(f"{path} is neither a run, a checkpoint nor an exported file")
    return TorchRuntime.load(path, device)


def _holds(path: Path, suffix: str) -> bool:
    return path.suffix == suffix or (path.is_dir() and any(path.glob(f"*{suffix}")))
