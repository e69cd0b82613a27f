"""The figures in the reports are those of the recorded runs."""

import subprocess
import sys
from pathlib import Path

from reports.table import records, rendered

REPORTS = Path(__file__).parent.parent / "reports"


def test_the_tables_are_up_to_date_with_the_records() -> None:
    done = subprocess.run([sys.executable, REPORTS / "table.py", "--check"], check=False)
    assert done.returncode == 0, "run `python reports/table.py`"


def test_a_changed_record_shows() -> None:
    page = "<!-- begin table resnet56-cifar10-jpeg -->\nold\n<!-- end table resnet56-cifar10-jpeg -->"
    assert "old" not in rendered(page)
    for record in records("resnet56-cifar10-jpeg"):
        assert f"{100 * record['accuracy']['routed']:.2f}%" in rendered(page)
        assert record["split"] == "test"
        assert record["flops"]["convention"].startswith("fvcore")
