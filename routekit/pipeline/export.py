"""A run made ready for use: its compact form, its files for other runtimes."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from routekit.cost.table import CostTable
from routekit.data.folder import files_of
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.files import check_apart
from routekit.formats.checkpoint import SPEC, TENSORS, network_folder, read_about, read_spec, save_network
from routekit.formats.compact import compact
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Hooks, Machine
from routekit.pipeline.run_folder import RunFolder
from routekit.runtime.load import load_runtime
from routekit.runtime.runtime import TorchRuntime, need
from routekit.runtime.verify import verify

# How many images at a time; more does not make it faster.
BATCH = 64
# What an export writes, in any format; other files in its folder are not ours.
EXPORTED = {SPEC, TENSORS} | {
    f"{form}.{suffix}" for form in ("single", "batch", "masked", "dense") for suffix in ("onnx", "xml", "bin", "pt2")
}


def export_run(path: Path, out: Path, *, dtype: torch.dtype | None, force: bool, machine: Machine) -> dict[str, Any]:
    """Write the compact form of a finished run to `out`; returns what it saved."""
    started = time.perf_counter()
    folder, plan = RunFolder.open(path)
    network = load_run(path).to(machine.accelerator().device)
    _check_free(path, out, force)
    spec = read_spec(network_folder(path))
    data = load_splits(plan.data, network.spec, plan.seed)
    routes = evaluate(network, data.val, CostTable.measure(network)).routes
    small = compact(network, routes)
    save_network(out, small.network, about=spec["about"], dtype=dtype)
    _remove_others(out, {SPEC, TENSORS})
    return {
        "run": str(folder.path),
        "out": str(out),
        "dropped": small.dropped,
        "settled": small.settled,
        "folded": len(small.folded),
        "parameters": {"dense": _parameters(network.backbone), "compact": _parameters(small.network)},
        "bytes": {"run": _bytes(network_folder(path)), "compact": _bytes(out)},
        "dtype": str(dtype or torch.float32).removeprefix("torch."),
        "seconds": time.perf_counter() - started,
    }


def export_program(
    path: Path, out: Path, *, kind: str, native: bool = False, force: bool, images: Path | None, hooks: Hooks
) -> dict[str, Any]:
    """Write a run, or a compact checkpoint, in the format of another runtime: "onnx", "openvino" or "torch".

    `native` ONNX files are for onnxruntime on CPUs of this machine's family.
    With `images`, each file is run beside the network on every image of that folder. Raises ExportError if they differ.
    """
    started = time.perf_counter()
    paths = [] if images is None else files_of(images)
    _check_packages(kind, native)
    network = load_run(path)
    _check_free(path, out, force)
    hooks.say(f"exporting {path} to {out}")
    files = write(kind, out, network, read_about(path), native=native)
    # OpenVINO writes two files for each form.
    _remove_others(out, {name for file in files for name in (file.name, file.with_suffix(".bin").name)})
    report: dict[str, Any] = {
        "run": str(path),
        "out": str(out),
        "format": kind,
        "files": {file.name: file.stat().st_size for file in files},
    }
    if paths:
        original = TorchRuntime(network, read_about(path))
        report["verified"] = {}
        for file in files:
            if file.stem == "dense":
                continue  # it takes no decisions
            size = 1 if file.stem == "single" else BATCH
            hooks.say(f"verifying {file} on {len(paths)} images")
            found = verify(load_runtime(file), original, paths, batch_size=size)
            report["verified"][file.name] = {"images": found.images, "largest_difference": found.largest}
    return report | {"seconds": time.perf_counter() - started}


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _remove_others(out: Path, written: set[str]) -> None:
    """Remove an export that was there before: in another format, it would be found in the place of this one."""
    for name in EXPORTED - written:
        (out / name).unlink(missing_ok=True)


def _check_free(path: Path, out: Path, force: bool) -> None:
    check_apart(out, [path, network_folder(path)])
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise InputError(f"{out} exists: choose another --out, or replace it with --force")


def _check_packages(kind: str, native: bool) -> None:
    # Each format needs packages of its own, which only its users have.
    if kind != "torch":
        need("onnxscript", "onnx")
    if native:
        need("onnxruntime", "onnx")
    if kind == "openvino":
        need("openvino", "openvino")


def write(kind: str, out: Path, network: RoutedNetwork, about: dict[str, Any], *, native: bool = False) -> list[Path]:
    """Write a network in the format of another runtime: "onnx", "openvino" or "torch"; returns the files.

    Raises InputError for another format, or a package that is not installed, ExportError for what cannot be written.
    """
    if kind not in ("onnx", "openvino", "torch"):
        raise InputError(f"unknown format {kind!r}: onnx, openvino, torch or compact")
    _check_packages(kind, native)
    if kind == "torch":
        from routekit.formats.program import save_program

        return save_program(out, network, about)
    from routekit.formats.onnx.file import save_onnx

    if kind == "onnx":
        return save_onnx(out, network, about, native=native)
    from routekit.formats.openvino import save_openvino

    with TemporaryDirectory() as folder:
        return save_openvino(out, save_onnx(Path(folder), network, about))
