"""Measure whether pruned channels save time: the same MACs, with channels kept one by one, and in sixteens.

    python reports/measure_widths.py torchvision:resnet18 --json reports/speed/resnet18-widths.json

Random weights: only times are asked for. Each network is exported whole, and called in turns with the others.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.backbones.narrow import LANES
from routekit.backbones.unit import Backbone
from routekit.baselines.pruning import prune
from routekit.cost.table import CostTable
from routekit.execution.timing import in_turns
from routekit.junctions.convert import convert
from routekit.macs import CONVENTION
from routekit.pipeline.machine import Machine

SHARES = (0.7, 0.5)
BATCHES = (1, 8)


def session(view: Backbone, file: Path) -> Any:
    """The network in onnxruntime, on the CPU."""
    import onnxruntime

    example = torch.randn(2, *view.spec.input_size)
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(view.model.eval(), (example,), dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    program.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def call(opened: Any, images: Tensor) -> object:
    """Run a session."""
    return opened.run(None, {opened.get_inputs()[0].name: images.numpy()})


def main() -> int:
    """Prune, export, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    view = build(spec_of(arguments.model))
    full = CostTable.measure(convert(view)).dense
    networks = {(1.0, None): view} | {
        (share, step): prune(view, "l1", share * full, step=step) for share in SHARES for step in (1, LANES)
    }
    rows = []
    with TemporaryDirectory() as folder:
        contenders = {
            str(key): partial(call, session(each, Path(folder, f"{place}.onnx")))
            for place, (key, each) in enumerate(networks.items())
        }
        for batch in BATCHES:
            images = [torch.randn(batch, *view.spec.input_size) for _ in range(4)]
            timed = in_turns(contenders, images, seconds=arguments.seconds)
            rows += [
                {
                    "share": CostTable.measure(convert(each)).dense / full,
                    "step": step,
                    "batch": batch,
                    "ms": timed[str((share, step))].typical,
                }
                for (share, step), each in networks.items()
            ]
    document = {
        "command": f"python reports/measure_widths.py {arguments.model}",
        "model": arguments.model,
        "convention": CONVENTION,
        "runtime": "onnxruntime",
        "rows": rows,
        "environment": Machine().environment(),
    }
    arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
