"""The figures in the reports are those of the recorded runs."""

import json
import re
from pathlib import Path

import pytest

from reports.headline import compared
from reports.ladders import over_seeds, picture
from reports.table import PAGES, PICTURE, PICTURED, mean_and_deviation, records, rendered
from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.report import report_comparison
from routekit.comparison.results import measured
from routekit.macs import CONVENTION
from routekit.pipeline.report import report_run
from routekit.report.drawing import save

REPORTS = Path(__file__).parent.parent / "reports"


def test_the_tables_are_up_to_date_with_the_records() -> None:
    for page in PAGES:
        assert page.read_text() == rendered(page.read_text()), f"{page.name}: run `python reports/table.py`"


def test_a_changed_record_shows() -> None:
    page = "<!-- begin table resnet56-cifar10-jpeg -->\nold\n<!-- end table resnet56-cifar10-jpeg -->"
    assert "old" not in rendered(page)
    for record in records("resnet56-cifar10-jpeg"):
        assert f"{100 * record['accuracy']['routed']:.2f}%" in rendered(page)
        assert record["split"] == "test"
        assert record["flops"]["convention"].startswith("fvcore")


def test_the_spread_over_seeds_by_hand() -> None:
    assert mean_and_deviation([1.0, 2.0, 6.0]) == "3.00% ± 2.65"
    assert mean_and_deviation([7.25]) == "7.25%"


def test_the_first_page_tells_every_method_and_marks_the_default() -> None:
    kept = REPORTS / "resnet56-comparison"
    lines = compared(kept.name).splitlines()[2:]
    cells = [cell for cell in measured(*ComparisonFolder.open(kept)) if cell.budget == "50%"]
    assert len(lines) == len({cell.method for cell in cells})
    for cell in cells:
        assert sum(f"{cell.accuracy:.2f}%" in line for line in lines) >= 1
    (default,) = [line for line in lines if "**" in line]
    assert f"**{next(cell for cell in cells if cell.method == 'cascade+again').accuracy:.2f}%**" in default


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ("pyramid8-hybrid/tree-34pct-seed0", "They take"),
        ("resnet20-cifar10-jpeg/resnet20-cifar10-jpeg-cascade-40pct-seed0", "They take"),
        ("resnet20-cifar10-jpeg/resnet20-cifar10-jpeg-l1-40pct-seed0", "All images take the same route"),
        ("resnet56-cifar10-jpeg/resnet20-resnet56-cifar10-jpeg-cascade-40pct", "They take 2 different routes"),
    ],
)
def test_what_a_former_version_recorded_is_reported(kept: str, says: str, tmp_path: Path) -> None:
    page, *pictures, _ = report_run(REPORTS / kept, tmp_path, "svg")
    assert says in page.read_text()
    exits = (REPORTS / kept / "record.json").read_text().count('"alone"')
    named = {picture.stem for picture in pictures}
    assert ("dataflow" in named, "dataflow-over-training" in named) == (exits > 0, exits > 0)


def rendered_by(drawing: Path) -> str:
    """What drew an SVG file: its lines hang on the version."""
    found = re.search(r"Matplotlib v[\d.]+", drawing.read_text())
    return found.group() if found else ""


@pytest.mark.parametrize(
    "kept", sorted(path.parent for path in REPORTS.glob("*/plan.yaml")), ids=lambda path: path.name
)
def test_a_recorded_comparison_is_reported_as_it_was(kept: Path, tmp_path: Path) -> None:
    page, picture, _ = report_comparison(kept, tmp_path, "svg")
    assert page.read_bytes() == (kept / "report.md").read_bytes(), f"run `routekit report {kept.name}`"
    before = kept / picture.name
    if rendered_by(picture) == rendered_by(before):
        assert picture.read_bytes() == before.read_bytes()
    for cell in measured(*ComparisonFolder.open(kept)):
        assert cell.record["split"] == "test"
        assert cell.record["flops"]["convention"] == CONVENTION


def test_the_picture_of_the_first_page_is_of_the_records(tmp_path: Path) -> None:
    save(picture(PICTURED), tmp_path / "new.svg")
    if rendered_by(tmp_path / "new.svg") == rendered_by(PICTURE):
        assert (tmp_path / "new.svg").read_bytes() == PICTURE.read_bytes(), "run `python reports/table.py`"
    alone, chosen, _ = over_seeds(PICTURED)
    seeds = [json.loads((PICTURE.parent / f"{PICTURED}-seed{seed}.json").read_text())["rows"] for seed in (0, 1, 2)]
    dense = [next(row for row in rows if row["passes"] == "dense fp32") for rows in seeds]
    (mean,) = [row for row in alone if row.name == "dense fp32"]
    assert mean.ms == pytest.approx(sum(row["ms"] for row in dense) / 3)
    assert mean.faster == 1
    assert {row.seeds for row in chosen} == {3}
