"""How a path becomes a runtime."""

import importlib
from pathlib import Path

import torch

from routekit.errors import InputError
from routekit.formats.checkpoint import load, read_about
from routekit.manifest import MANIFEST, ours, read_manifest
from routekit.runtime.runtime import Runtime, TorchRuntime

PROGRAMS = "*.pt2"
# By the files that it opens, the first that fits: each needs a package that only its users have.
RUNTIMES = {
    "pass-*.onnx": "passes:open_passes",
    "*.onnx": "onnx:OnnxRuntime",
    "*.xml": "openvino:OpenVinoRuntime",
    PROGRAMS: "program:ProgramRuntime",
}


def load_runtime(path: Path, device: torch.device | None = None, *, trust: bool = False) -> Runtime:
    """Open a run, a compact checkpoint, or what `routekit export` wrote in any format.

    In a folder, only what its manifest names is opened: what else lies there is not ours.

    Args:
        path: The folder, or one of the exported files.
        device: Where a run or a checkpoint computes; by default on the CPU, as exported files do.
        trust: Whether programs of torch are opened, which may run any code that lies in them.

    Returns:
        What answers images.

    Raises:
        InputError: It is none of these, it is not as it was written, or a package is not installed.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    for files, place in RUNTIMES.items():
        if path.match(files) if path.is_file() else ours(path, files):
            if files == PROGRAMS and not (trust and path.is_file()):
                raise InputError(
                    f"{path} is a program of torch, and to open one is to run code that may lie in it. If you trust "
                    "whoever made it, open its file masked.pt2 with trust=True; other formats hold no code"
                )
            module, _, name = place.partition(":")
            runtime: Runtime = getattr(importlib.import_module(f"routekit.runtime.{module}"), name)(path)
            return runtime
    if path.is_file():
        raise InputError(f"{path} is neither a run, a checkpoint nor an exported file")
    if read_manifest(path) is None and any(any(path.glob(files)) for files in RUNTIMES):
        raise InputError(
            f"{path} holds nothing that routekit wrote ({MANIFEST} is missing): name a file, or take what is there "
            "with verify=False"
        )
    return TorchRuntime(load(path), read_about(path), device)
