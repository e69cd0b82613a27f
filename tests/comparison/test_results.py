"""What is done has to compare: records of other networks or images are told, and enter no table."""

import json
from pathlib import Path

import pytest

from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.results import measured
from routekit.errors import InputError
from tests.records import whole


def record(model: str = "resnet20", data: str = "digits", images: int = 400) -> str:
    return json.dumps({"model": model, "data": data, "images": images})


@pytest.fixture
def plan() -> Plan:
    shared = {"model.name": "resnet20"}
    return Plan(
        base="digits", shared=shared, methods=["dense", "skip", "idk"], budgets=["60%"], seeds=[0], smaller=["s"]
    )


def write(folder: ComparisonFolder, cell: Cell, text: str) -> None:
    folder.of(cell).path.mkdir(parents=True, exist_ok=True)
    (folder.of(cell).path / "record.json").write_text(whole(json.loads(text)) if text[:1] == "{" else text)


def test_smaller_networks_and_cascades_of_several_are_others_by_design(plan: Plan, tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path)
    names = {"smaller0": "resnet8", "idk": "resnet8 -> resnet20"}
    for cell in plan.cells():
        write(folder, cell, record(names.get(cell.method, "resnet20")))
    assert [each.method for each in measured(folder, plan)] == ["smaller0", "dense", "skip", "idk"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (record(model="resnet56"), "is of resnet56, and the plan of resnet20"),
        (record(data="cifar10"), "is of 400 images of cifar10, and dense-seed0 of 400 of digits"),
        (record(images=40), "is of 40 images of digits, and dense-seed0 of 400 of digits"),
    ],
)
def test_a_record_of_something_else_is_refused(wrong: str, says: str, plan: Plan, tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path)
    write(folder, Cell("dense", None, 0), record())
    write(folder, Cell("skip", "60%", 0), wrong)
    with pytest.raises(InputError) as caught:
        measured(folder, plan)
    assert says in str(caught.value)
    assert "skip-60pct-seed0" in str(caught.value)
    assert f"--resume {tmp_path}" in str(caught.value)
