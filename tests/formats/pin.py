"""Write a small file of every format of this version: `python -m tests.formats.pin`.

Later versions must load them, or refuse them and say what to do. Do not write them anew to make a test pass.
"""

import json
from pathlib import Path

import torch

from routekit.api import save
from routekit.baselines.forms import form_of
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.cost.table import CostTable
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.passes import save_passes
from routekit.formats.openvino import save_openvino
from routekit.formats.program import save_program
from routekit.junctions.convert import convert, join
from routekit.macs import CONVENTION
from routekit.manifest import seal
from routekit.network.network import RoutedNetwork
from routekit.pipeline.plan import resolve
from routekit.pipeline.record import write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import Facts
from routekit.recipe import load_recipe
from tests.toy import small_view

PINNED = Path(__file__).parent / "pinned"
RECORD = {
    "run": "runs/x", "model": "resnet20", "data": "digits", "split": "test", "images": 360, "method": "routed",
    "seed": 0, "accuracy": {"dense": 0.9, "routed": 0.85}, "seconds": 3.0, "junctions": ["skip"],
    "flops": {"convention": CONVENTION, "dense": 100.0, "target": 60.0, "realized": 60.2, "p5": 50, "p50": 60,
              "p95": 70},
    "routes": {"unique": 5, "entropy_bits": 1.5, "mean_units": 2.0, "units": 3, "run_rate": {"layer1.0": 0.4}},
    "environment": {"device": "a CPU", "threads": 2, "date": "2026-11-30"},
}  # fmt: skip
CLASSES = ["red", "green", "blue"]


def images() -> torch.Tensor:
    """The images that the answers are to."""
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def tiny(seed: int) -> RoutedNetwork:
    """A network of some thousand weights."""
    view = small_view(seed, depth=8)
    return form_of(view, "depgraph", 0.06 * CostTable.measure(convert(view)).dense).eval()


@torch.no_grad()
def main() -> None:
    """Write them all, with the answers."""
    network = join([tiny(0), tiny(1)])
    about = {"classes": CLASSES}
    first = network(images(), routes=torch.zeros(6, 1, dtype=torch.bool)).logits
    network.set_bias(first.softmax(dim=1).amax(dim=1).median().view(1) + 1e-4)  # half of the images go on
    save(network, PINNED / "checkpoint", classes=CLASSES)
    save_onnx(PINNED / "onnx", network, about, forms=["batch"])
    save_passes(PINNED / "passes", network, about)
    save_openvino(PINNED / "openvino", [PINNED / "onnx" / "batch.onnx"])
    save_program(PINNED / "torch", network, about)
    (PINNED / "torch" / "dense.pt2").unlink()  # large, and it decides nothing
    seal(PINNED / "torch", "network")
    recipe = load_recipe("skip", {"model.name": "resnet20", "target": "60%", "data.source": "digits"})
    write_record(RunFolder.create(PINNED / "run", resolve(recipe, Facts(classes=10)), force=True).path, RECORD)
    shared = {"model.name": "resnet20", "data.source": "digits", "model.weights": "none"}
    plan = Plan(base="default", shared=shared, methods=["l1"], budgets=["60%"], seeds=[0])
    ComparisonFolder.create(PINNED / "comparison", plan, force=True)
    (PINNED / "recipe.yaml").write_text(recipe.to_yaml())
    answers = network(images())
    document = {"logits": answers.logits.tolist(), "routes": answers.routes.tolist()}
    (PINNED / "answers.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
