"""Sweep every network that the adapters claim: each has a form at a quarter of its cost, which runs.

    python tests/sweep_forms.py forms.txt

One line a network: whether all is well, its name, the kind of its form, the share of the cost reached. Networks that
are in the file already are left out. Random weights.
"""

import argparse
import gc
import sys
from pathlib import Path

import torch

from routekit.backbones.catalog import list_models
from routekit.backbones.load import build, spec_of
from routekit.baselines.forms import form_of, kind_for
from routekit.cost.table import CostTable
from routekit.junctions.convert import convert

# A form may cost this much more than it was asked to.
SLACK = 1.1


def check(name: str, size: int, share: float) -> str:
    """Make a form of one network; returns its kind and the share reached. Raises AssertionError if it does not do."""
    torch.manual_seed(0)
    cifar = not name.startswith(("timm:", "torchvision:"))
    view = build(spec_of(name, num_classes=10, input_size=(3, 32, 32) if cifar else (3, size, size)))
    whole = CostTable.measure(convert(view)).dense
    kind = kind_for(view, share * whole)
    form = form_of(view, kind, share * whole)
    reached = CostTable.measure(form).dense / whole
    assert reached <= SLACK * share, f"{kind} {reached:.3f}: the form costs too much"
    with torch.no_grad():
        logits = form(torch.randn(2, *view.spec.input_size)).logits
    assert logits.shape == (2, 10), f"{kind} {reached:.3f}: the form answers in another shape"
    assert torch.isfinite(logits).all(), f"{kind} {reached:.3f}: the form's output is not finite"
    return f"{kind} {reached:.3f}"


def main() -> int:
    """Run the sweep; exit code 1 if a network failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the results so far, and those to come")
    parser.add_argument("--only", default="", help="only names that contain this")
    parser.add_argument("--size", type=int, default=96, help="height and width of the images")
    parser.add_argument("--share", type=float, default=0.25, help="what a form is to cost, as a share of its network")
    arguments = parser.parse_args()
    lines = arguments.file.read_text().splitlines() if arguments.file.exists() else []
    done = {line.split()[1] for line in lines if line.startswith("ok")}
    failed = 0
    for entry in list_models():
        name = entry.name if entry.source == "cifar" else f"{entry.source}:{entry.name}"
        if arguments.only not in name or name in done:
            continue
        try:
            line = f"ok   {name} {check(name, arguments.size, arguments.share)}"
        except Exception as error:  # the sweep goes on; the fault is its result
            line = f"FAIL {name} {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        failed += not line.startswith("ok")
        with arguments.file.open("a") as file:
            file.write(f"{line}\n")
        sys.stdout.write(f"{line}\n")
        gc.collect()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
