"""Files that this version wrote are read by every later one: to the same answers, or refused with a way out."""

import json
from pathlib import Path

import pytest
import torch

from routekit.comparison.plan import ComparisonFolder
from routekit.formats.checkpoint import load
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import load_recipe
from routekit.report.findings import facts
from routekit.report.record import read_record
from routekit.runtime.load import load_runtime
from tests.formats.pin import CLASSES, PINNED, images

ANSWERS = json.loads((PINNED / "answers.json").read_text())


def test_a_checkpoint() -> None:
    with torch.no_grad():
        found = load(PINNED / "checkpoint")(images())
    torch.testing.assert_close(found.logits, torch.tensor(ANSWERS["logits"]), rtol=1e-4, atol=1e-5)
    assert found.routes.tolist() == ANSWERS["routes"]


@pytest.mark.parametrize("name", ["onnx", "onnx/batch.onnx", "passes", "openvino", "torch/masked.pt2"])
def test_exported_files(name: str) -> None:
    runtime = load_runtime(PINNED / name, trust=name.endswith(".pt2"))
    assert runtime.description.classes == CLASSES
    found = runtime(images())
    torch.testing.assert_close(found.logits, torch.tensor(ANSWERS["logits"]), rtol=1e-3, atol=1e-4)
    assert found.routes.tolist() == ANSWERS["routes"]


def test_documents() -> None:
    plan = RunFolder.open(PINNED / "run")[1]
    assert (plan.model, plan.kinds, plan.spec.num_classes) == ("resnet20", ["skip"], 10)
    assert facts(read_record(PINNED / "run"))[0].startswith("85.00% (± 1.88, one standard error) of 360 test images")
    compared = ComparisonFolder.open(PINNED / "comparison")[1]
    assert [cell.name for cell in compared.cells()] == ["l1-60pct-seed0"]
    assert load_recipe(str(PINNED / "recipe.yaml")).target == "60%"


def test_nothing_pinned_names_a_machine() -> None:
    for file in PINNED.rglob("*"):
        if file.suffix in (".json", ".yaml"):
            assert str(Path.home()) not in file.read_text()
