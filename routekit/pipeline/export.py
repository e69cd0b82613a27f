"""A run made ready for use: its compact form, its files for other runtimes."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from routekit import manifest
from routekit.backbones.unit import ModelSpec
from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.decode import decode
from routekit.data.folder import files_of
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.files import check_folder, whole_folder
from routekit.formats.checkpoint import network_folder, read_about, save_network
from routekit.formats.compact import Compact, compact
from routekit.network.network import RoutedNetwork
from routekit.network.program import by_position
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Hooks, Machine
from routekit.pipeline.run_folder import RunFolder
from routekit.runtime.load import load_runtime
from routekit.runtime.runtime import TorchRuntime, need
from routekit.runtime.verify import agreement, verify

# How many images at a time; more does not make it faster.
BATCH = 64
# What is made of one plain graph for each pass.
PASSES = ("passes", "triton")
# By how many images passes are quantised at most.
MOST = 300


def export_run(path: Path, out: Path, *, dtype: str, force: bool, machine: Machine) -> dict[str, Any]:
    """Write the compact form of a finished run.

    Args:
        path: The run.
        out: The folder to write.
        dtype: The type of the stored parameters: "float32", "float16" or "bfloat16".
        force: Whether a folder that is not empty is used.
        machine: Where validation images are run.

    Returns:
        What was saved, for JSON.

    Raises:
        InputError: There is no such run, or the folder is not free.
    """
    started = time.perf_counter()
    RunFolder.open(path)
    _check_free(path, out, force=force)
    network, small = compact_run(path, machine)
    save_network(out, small.network, about=read_about(path), dtype=getattr(torch, dtype))
    return {
        "run": str(path),
        "out": str(out),
        "dropped": small.dropped,
        "settled": small.settled,
        "folded": len(small.folded),
        "parameters": {"dense": _parameters(network.backbone), "compact": _parameters(small.network)},
        "bytes": {"run": _bytes(network_folder(path)), "compact": _bytes(out)},
        "dtype": dtype,
        "seconds": time.perf_counter() - started,
    }


def compact_run(path: Path, machine: Machine) -> tuple[RoutedNetwork, Compact]:
    """Make the compact form of a finished run, by the routes of its validation images.

    Args:
        path: The run.
        machine: Where these are run.

    Returns:
        The network of the run, and its compact form.

    Raises:
        InputError: There is no such run, or its images are not there.
    """
    _, plan = RunFolder.open(path)
    network = load_run(path).to(machine.accelerator().device)
    data = load_splits(plan.data, network.spec, plan.seed)
    return network, compact(network, evaluate(network, data.val, CostTable.measure(network)).routes)


def export_program(
    path: Path,
    out: Path,
    *,
    kind: str,
    native: bool = False,
    calibrate: Path | None = None,
    force: bool,
    images: Path | None,
    hooks: Hooks,
) -> dict[str, Any]:
    """Write a run, or a compact checkpoint, in the format of another runtime.

    Args:
        path: The run or checkpoint.
        out: The folder to write.
        kind: "onnx", "passes", "triton", "openvino" or "torch".
        native: Whether ONNX files are for onnxruntime on CPUs of this machine's family.
        calibrate: A folder of images by which passes are quantised to int8; None for float32.
        force: Whether a folder that is not empty is used.
        images: A folder of images on which each file is compared with the network; None for no comparison.
        hooks: Where sentences go.

    Returns:
        What was written, for JSON.

    Raises:
        InputError: There is no such run, a package is not installed, or the folder is not free.
        ExportError: The format cannot hold the network, or a file differs from it.
    """
    started = time.perf_counter()
    paths = [] if images is None else files_of(images)
    calibration = [] if calibrate is None else files_of(calibrate)
    _check_format(kind, native)
    network, about = load_run(path), read_about(path)
    _check_free(path, out, force=force)
    hooks.say(f"exporting {path} to {out}")
    chosen = RunFolder(path).passes
    taken = kind == "triton" and chosen.exists() and not calibration
    if kind in PASSES and chosen.exists():
        hooks.say(
            "the passes that were measured, in the precisions that were chosen, are "
            + ("taken as they are" if taken else f"in {chosen}")
        )
    report: dict[str, Any] = {"run": str(path), "out": str(out), "format": kind}
    with whole_folder(out, "network") as made:  # an export that fails, or is not verified, leaves an older one
        files = _copied(chosen, made) if taken else write(kind, made, network, about, native=native)
        if calibration:
            from routekit.runtime.quantize import quantize_passes

            hooks.say(f"quantising to int8, by {min(len(calibration), MOST)} images of {calibrate}")
            quantize_passes(made, _read(calibration, network.spec))
        if paths and (calibration or taken):
            report["agreement"] = agreement(load_runtime(made), TorchRuntime(network, about), paths, batch_size=BATCH)
        elif paths:
            checked = [made] if kind in PASSES else [file for file in files if file.stem != "dense"]
            report["verified"] = _verify(checked, TorchRuntime(network, about), paths, hooks, named=out.name)
        if kind == "triton":
            from routekit.formats.triton import to_triton

            files = to_triton(made)
        report["files"] = {file.relative_to(made).as_posix(): file.stat().st_size for file in files}
    return report | {"seconds": time.perf_counter() - started}


def _copied(passes: Path, folder: Path) -> list[Path]:
    """Copy the passes of a ladder. Raises InputError: they are not as they were written."""
    files = manifest.ours(passes, "pass-*.onnx")
    for file in files:
        manifest.verify(file)
        shutil.copy(file, folder)
    manifest.seal(folder, "network")
    return [folder / file.name for file in files]


def _verify(
    files: Sequence[Path], original: TorchRuntime, paths: Sequence[str], hooks: Hooks, *, named: str
) -> dict[str, Any]:
    """Compare each exported file, or the folder of passes, `named` as it will be, with the network on images."""
    verified = {}
    for file in files:
        name = named if file.is_dir() else file.name
        hooks.say(f"verifying {name} on {len(paths)} images")
        runtime = load_runtime(file, trust=True)
        found = verify(runtime, original, paths, batch_size=1 if file.stem == "single" else BATCH)
        verified[name] = {"images": found.images, "largest_difference": found.largest}
    return verified


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _read(files: Sequence[str], spec: ModelSpec) -> Tensor:
    """Read some of many image files, evenly spread over them: `[N, C, H, W]`, normalised."""
    chosen = [files[place * len(files) // MOST] for place in range(MOST)] if len(files) > MOST else list(files)
    return normalize(decode(chosen, spec.preprocessing), spec.mean, spec.std)


def _check_free(path: Path, out: Path, *, force: bool) -> None:
    check_folder(out, "network", force=force, needs=[path, network_folder(path)])


def _check_format(kind: str, native: bool) -> None:
    """Raise InputError for an unknown format, or one whose packages, which only its users need, are not installed."""
    if kind not in ("onnx", *PASSES, "openvino", "torch"):
        raise InputError(f"unknown format {kind!r}: onnx, passes, triton, openvino, torch or compact")
    if kind != "torch":
        need("onnxscript", "onnx")
    if native:
        need("onnxruntime", "onnx")
    if kind == "openvino":
        need("openvino", "openvino")


def write(kind: str, out: Path, network: RoutedNetwork, about: dict[str, Any], *, native: bool = False) -> list[Path]:
    """Write a network in the format of another runtime.

    Args:
        kind: "onnx", "passes", "openvino" or "torch"; "triton": the passes of which its models are made.
        out: The folder to write.
        network: The network.
        about: What the files say about the network: the classes, the record.
        native: Whether ONNX files are for onnxruntime on CPUs of this machine's family.

    Returns:
        The files.

    Raises:
        InputError: The format is unknown, or a package is not installed.
        ExportError: The format cannot hold the network.
    """
    _check_format(kind, native)
    if by_position(network.steps):
        raise InputError(
            "positions of features decide in this network (junctions=sact): there is no graph of dense operators that "
            "computes some of them; use it from Python, export its compact form, or convert with junctions=act"
        )
    if kind == "torch":
        from routekit.formats.program import save_program

        return save_program(out, network, about)
    from routekit.formats.onnx.file import save_onnx

    if kind == "onnx":
        return save_onnx(out, network, about, native=native)
    if kind in PASSES:
        from routekit.formats.onnx.passes import save_passes

        return save_passes(out, network, about)
    from routekit.formats.openvino import save_openvino

    with TemporaryDirectory() as folder:
        return save_openvino(out, save_onnx(Path(folder), network, about))
