"""The answers of a run, a checkpoint or an exported file to image files."""

import time
from pathlib import Path
from typing import Any

from routekit.data.augment import normalize
from routekit.data.decode import decode
from routekit.data.folder import files_of
from routekit.errors import InputError
from routekit.formats.checkpoint import read_about
from routekit.macs import CONVENTION
from routekit.pipeline.inputs import load_run
from routekit.pipeline.machine import Machine
from routekit.pipeline.run_folder import RunFolder
from routekit.runtime.load import load_runtime
from routekit.runtime.runtime import Runtime, TorchRuntime

# How many images at a time; more does not make it faster.
BATCH = 64


def predict(path: Path, images: list[Path], *, top: int, machine: Machine, trust: bool = False) -> dict[str, Any]:
    """Classify image files.

    Args:
        path: A run, a checkpoint or an exported file.
        images: Image files, or folders of them.
        top: How many classes are given for each image.
        machine: Where it runs.
        trust: Whether a program of torch is opened, which may run any code that lies in it.

    Returns:
        For each image, its likeliest classes, its route and its cost in MACs.

    Raises:
        InputError: The network or an image cannot be read.
    """
    started = time.perf_counter()
    for place in images:
        if RunFolder(place).begun:
            raise InputError(f"{place} is a run, and stands where images do: the network comes first, then the images")
    files = [file for place in images for file in (files_of(place) if place.is_dir() else [str(place)])]
    device = machine.accelerator().device
    # The plan of a run names the file that makes a user's own network.
    run = RunFolder(path)
    if run.begun and not run.passes.exists():
        runtime: Runtime = TorchRuntime(load_run(path), read_about(path), device)
    else:  # a ladder that was aimed at another runtime holds the passes that were measured
        runtime = load_runtime(run.passes if run.begun else path, device, trust=trust)
    about = runtime.description
    predictions = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        pixels = decode(batch, about.spec.preprocessing)
        answer = runtime(normalize(pixels, about.spec.mean, about.spec.std))
        best = answer.logits.softmax(dim=1).topk(min(top, about.spec.num_classes))
        costs = about.costs.of_routes(answer.routes if answer.computed is None else answer.computed)
        for row, file in enumerate(batch):
            ranked = zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
            predictions.append(
                {
                    "image": file,
                    "top": [{"class": about.classes[index], "probability": value} for index, value in ranked],
                    "route": [name for name, taken in zip(about.columns, answer.routes[row], strict=True) if taken],
                    "flops": float(costs[row]),
                }
            )
    return {
        "model": str(path),
        "convention": CONVENTION,
        "dense_flops": about.dense,
        "decided": about.columns,
        "images": predictions,
        "seconds": time.perf_counter() - started,
    }
