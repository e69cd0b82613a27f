"""Sweep every network that the adapters claim: with all units run, the routed view equals the model bit for bit.

    python tests/sweep_backbones.py --json reports/backbones.json

Random weights, and random batch-norm statistics and affine parameters, without which networks that start with a zero
scale in their last batch norm would pass whatever a residual branch computes.
"""

import argparse
import copy
import gc
import json
import sys
import time
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

from routekit.backbones.catalog import list_models
from routekit.backbones.load import build, spec_of
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip


def randomize(model: nn.Module) -> None:
    """Draw everything that a normalisation layer holds, the scales smaller the deeper the network: or it overflows."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]
    scale = min(1.0, (50 / max(1, len(norms))) ** 0.5)
    for module in norms:
        for tensor in (module.weight, getattr(module, "running_var", None)):
            if tensor is not None:
                nn.init.uniform_(tensor, 0.5 * scale, 1.5 * scale if tensor is module.weight else 1.5)
        for tensor in (module.bias, getattr(module, "running_mean", None)):
            if tensor is not None:
                nn.init.uniform_(tensor, -0.5, 0.5)


@torch.no_grad()
def check(name: str, size: int) -> int:
    """Convert one network and compare; returns the number of its units. Raises AssertionError where they differ."""
    torch.manual_seed(0)
    cifar = not name.startswith(("timm:", "torchvision:"))
    view = build(spec_of(name, num_classes=10, input_size=(3, 32, 32) if cifar else (3, size, size)))
    randomize(view.model)
    view.model.eval()
    x = torch.randn(2, *view.spec.input_size)
    want = view.model(x)
    assert torch.isfinite(want).all(), "the model's own output is not finite"
    features = view.stem(x)
    for unit in view.units:
        before = features.clone()
        skipped, ran = unit.skip(features), unit.run(features)
        assert torch.equal(features, before), f"{unit.name} changes its input, which its other sink still needs"
        assert skipped.shape == ran.shape, f"skipping {unit.name} changes the shape"
        features = ran
    assert torch.equal(view.head(features), want), "the view's output differs"
    network = convert(view, [Skip()]).eval()
    opened = network(x)
    assert opened.routes.all(), "a fresh network skips units"
    assert torch.equal(opened.logits, want), "open-gate output differs"
    nothing = torch.zeros(2, len(network.junctions), dtype=torch.bool)
    skipped = network(x, routes=nothing).logits
    assert skipped.shape == want.shape, "skipping changes the shape"
    assert torch.isfinite(skipped).all(), "skipping every unit gives no finite output"
    assert not torch.equal(skipped, want), "skipping every unit changes nothing"
    if sum(parameter.numel() for parameter in view.model.parameters()) < 2e8:
        assert torch.equal(copy.deepcopy(network)(x).logits, want), "a deep copy differs"
    return len(network.junctions)


def main() -> int:
    """Run the sweep; exit code 1 if a network failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--only", default="", help="only names that contain this")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    arguments = parser.parse_args()
    results = []
    started = time.perf_counter()
    for entry in list_models():
        name = entry.name if entry.source == "cifar" else f"{entry.source}:{entry.name}"
        # No unit of a pyramid can be skipped; they have a test of their own.
        if arguments.only not in name or entry.family == "pyramid":
            continue
        try:
            units, fault = check(name, arguments.size), None
        except Exception as error:  # the sweep goes on; the fault is its result
            units, fault = 0, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        results.append({"model": name, "units": units, "exact": fault is None, "fault": fault})
        sys.stdout.write(f"{'ok  ' if fault is None else 'FAIL'} {name} {units} {fault or ''}\n")
        sys.stdout.flush()
        gc.collect()
    failed = sum(not result["exact"] for result in results)
    sys.stdout.write(f"{len(results) - failed} passed, {failed} failed\n")
    if arguments.json is not None:
        versions = {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__}
        document = {
            "command": "python tests/sweep_backbones.py",
            "image_size": arguments.size,
            "passed": len(results) - failed,
            "failed": failed,
            "seconds": round(time.perf_counter() - started),
            "versions": versions,
            "models": results,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
