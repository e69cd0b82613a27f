"""Measure exported passes: accuracy on all test images, and milliseconds as they are driven, one image at a time.

    python reports/measure_passes.py dense-fp32 dense-int8 cascade-fp32 cascade-int8 --data path/to/photos

Each folder is what `routekit export --format passes` wrote. Images come one by one, in turns of all folders, so that
what disturbs one disturbs the others as well; all sessions share one pool of threads. Mean, median, and the 95% and 99%
quantiles are over images.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ["ROUTEKIT_SHARED_THREADS"] = "1"

import torch

from routekit.data.augment import normalize
from routekit.pipeline.inputs import load_splits
from routekit.pipeline.machine import Machine
from routekit.recipe import DataSection
from routekit.runtime.passes import open_passes


def main() -> None:
    """Print the measurements as JSON, and write them where --out says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--turn", type=int, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    single = {str(folder): open_passes(folder, batch=1) for folder in given.folders}
    spec = next(iter(single.values())).description.spec
    test = load_splits(DataSection(source=given.data), spec, 0).test
    rows: dict[str, dict[str, float]] = {}
    for folder in given.folders:
        runtime, right, on = open_passes(folder), 0, torch.zeros(0)
        for images, labels in test.batches(torch.arange(len(test)), 64):
            answer = runtime(normalize(images, spec.mean, spec.std))
            right += int((answer.logits.argmax(dim=1) == labels).sum())
            on = torch.cat([on, answer.routes.any(dim=1).float()])
        size = sum(file.stat().st_size for file in folder.glob("pass-*.onnx"))
        rows[str(folder)] = {"accuracy": right / len(test), "goes_on": float(on.mean()), "bytes": size}
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: given.images]
    pixels = torch.cat([normalize(images, spec.mean, spec.std) for images, _ in test.batches(chosen, 64)])
    taken: dict[str, list[float]] = {name: [] for name in single}
    names = list(single)
    for part in torch.split(pixels, given.turn):
        for name in names:
            single[name](part[:1])
            for image in torch.split(part, 1):
                started = time.perf_counter()
                single[name](image)
                taken[name].append(1e3 * (time.perf_counter() - started))
        names.reverse()
    for name, times in taken.items():
        every = torch.tensor(times, dtype=torch.float64)
        rows[name] |= {"mean_ms": float(every.mean())}
        rows[name] |= {f"p{q}_ms": float(every.quantile(q / 100)) for q in (50, 95, 99)}
    report = {"data": given.data, "images": len(test), "timed": len(pixels), "rows": rows}
    report["environment"] = Machine("cpu").environment()
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if given.out is not None:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
