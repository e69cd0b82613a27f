"""`bench`: rows, a picture and a page."""

import json
from pathlib import Path

from tests.cli.command import in_process


def test_a_benchmark_reports_rows_a_picture_and_a_page(workplace: Path) -> None:
    done = in_process(
        "bench", "runs/routed", "--runtime", "torch", "--batch", "1,4", "--images", 4, "--seconds", 0,
        "--no-compile", "--threads", 1, "--picture", "chart.svg", "--html", "bench.html", "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["runtime"], row["batch"]) for row in report["rows"]] == [("torch", 1), ("torch", 4)]
    for row in report["rows"]:
        assert {"runtime", "device", "batch", "dense_ms", "routed_ms", "speedup", "ideal", "efficiency"} <= set(row)
    assert report["environment"]["threads"] == 1
    assert (workplace / "chart.svg").read_text().lstrip().startswith("<?xml")
    assert "<table>" in (workplace / "bench.html").read_text()
