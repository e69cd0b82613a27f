"""Find where the time of an exported network goes in onnxruntime.

    python reports/profile_onnx.py resnet110 0.28 path/to/cifar10-jpeg --batch 1,64

MODEL is a network by name whose routers are set to RATE. Its dense file and its native routed one (for one image, or
for batches) run with onnxruntime's own profiler, which adds some microseconds to each operator. Times are means,
milliseconds a call, by kind of operator; `If` is what the branches take beyond the operators inside of them. Prints one
JSON document.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from routekit.bench.rates import set_run_rate
from routekit.formats.onnx.assembly import Form
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.pipeline.bench import draw, subject
from routekit.pipeline.machine import Machine
from routekit.recipe import DataSection


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rate", type=float)
    parser.add_argument("data")
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    network, data, seed = subject(options.model, options.rate, DataSection(source=options.data))
    images = draw(data.test, 256, network.spec, seed)
    if options.rate is not None:
        set_run_rate(network, images[:256], options.rate)
    rows = []
    with TemporaryDirectory() as name:
        folder, exporter = Path(name), Exporter()
        (dense,) = save_onnx(folder, network, {}, exporter, forms=("dense",))
        for batch in map(int, options.batch.split(",")):
            form: Form = "single" if batch == 1 else "batch"
            (routed,) = save_onnx(folder, network, {}, exporter, forms=(form,), native=True)
            batches = [part.contiguous().numpy() for part in torch.split(images, batch)][:32]
            rows.append(
                {
                    "batch": batch,
                    "dense_ms_by_operator": by_operator(dense, batches, options.threads),
                    "routed_ms_by_operator": by_operator(routed, batches, options.threads),
                }
            )
    environment = Machine().environment() | {"onnxruntime": onnxruntime.__version__, "threads": options.threads}
    document = {"model": options.model, "rate": options.rate, "rows": rows, "environment": environment}
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


def by_operator(file: Path, batches: list[np.ndarray[Any, Any]], threads: int) -> dict[str, float]:
    """Profile an onnxruntime session on the batches, after a first call; milliseconds a call, the dearest first."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    for batch in [batches[0], *batches]:
        session.run(None, {"images": batch})
    events = json.loads(Path(session.end_profiling()).read_text())
    _, second, *_ = sorted(event["ts"] for event in events if event["name"] == "model_run")
    nodes = [event for event in events if event["name"].endswith("_kernel_time") and event["ts"] >= second]
    spent: Counter[str] = Counter()
    until = 0.0  # when the branch ends that is being executed
    for node in sorted(nodes, key=lambda node: float(node["ts"])):
        kind = node["args"]["op_name"]
        spent[kind] += node["dur"]
        if kind == "If":
            until = node["ts"] + node["dur"]
        elif node["ts"] < until:
            spent["If"] -= node["dur"]
    return {kind: round(1e-3 * time / len(batches), 4) for kind, time in spent.most_common()}


if __name__ == "__main__":
    main()
