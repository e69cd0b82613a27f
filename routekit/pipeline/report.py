"""The report of a run, and the pictures that there are for several, drawn from their records."""

import itertools
import json
from collections.abc import Container
from pathlib import Path

from routekit.files import existing, write_text
from routekit.pipeline.measure import analyse_run
from routekit.report import pictures, run_page
from routekit.report.record import read_record
from routekit.training.log import read_metrics

ANALYSIS = "analysis.json"


def report_run(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a finished run: `report.md`, its pictures, `index.html`; returns the files.

    The first time, the run's test images are gone through once more, and what was found is kept in `analysis.json`;
    the report is made of what is recorded alone. Raises InputError for a run without its own network or images.
    """
    record, kind, out = read_record(path), pictures.known(kind), existing(out)
    kept = path / ANALYSIS
    if not kept.exists():
        text = json.dumps(analyse_run(path).to_dict(), indent=2) + "\n"
        write_text(kept, text)
    analysis = json.loads(kept.read_text())
    figures = {
        "routes": pictures.shared_routes(analysis["shared"]),
        "units": pictures.who_runs_what(analysis["columns"], analysis["classes"], analysis["class_rates"]),
        "lengths": pictures.by_length(analysis["lengths"]),
    }
    if (path / "metrics.jsonl").exists():
        metrics = read_metrics(path / "metrics.jsonl")
        figures = {"training": pictures.training(metrics)} | figures
        if record.get("exits"):
            figures["dataflow-over-training"] = pictures.dataflow_over_training(record, metrics)
    if record.get("exits"):
        figures["dataflow"] = pictures.dataflow([record])
    files, drawings = [], []
    for name, figure in figures.items():
        files.append(out / f"{name}.{kind}")
        pictures.save(figure, files[-1])
        if name != "routes":  # the page shows these to click on
            drawings.append(pictures.as_svg(figure))
    page, interactive = out / "report.md", out / "index.html"
    page.write_text(run_page.markdown(record, analysis, [file.name for file in files]), encoding="utf-8")
    interactive.write_text(run_page.html(record, analysis, drawings), encoding="utf-8")
    return [page, *files, interactive]


def draw(runs: list[Path], out: Path, kind: str) -> list[Path]:
    """Draw the finished `runs` as files of the given kind, "svg" or "png", in `out`; returns them.

    Raises InputError for what is no finished run, or cannot be written.
    """
    kind = pictures.known(kind)
    records = [read_record(run) for run in runs]
    out = existing(out)
    figures = {"accuracy-against-cost": pictures.accuracy_against_cost(records)}
    if any(record.get("exits") for record in records):
        figures["dataflow"] = pictures.dataflow(records)
    for run, record in zip(runs, records, strict=True):
        if record.get("exits") and (run / "metrics.jsonl").exists():
            metrics = read_metrics(run / "metrics.jsonl")
            if any(line["kind"] == "validation" for line in metrics):  # a cascade may be made without training
                figures[_another(f"training-{run.resolve().name}", figures)] = pictures.dataflow_over_training(
                    record, metrics
                )
    files = []
    for name, figure in figures.items():
        files.append(out / f"{name}.{kind}")
        pictures.save(figure, files[-1])
    return files


def _another(name: str, taken: Container[str]) -> str:
    """The name, or one like it that is not taken: runs in different folders may be called alike."""
    others = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], others) if each not in taken)
