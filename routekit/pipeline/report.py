"""The report of a run, and the pictures that there are for several, drawn from their records."""

import itertools
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from routekit.files import existing, write_text
from routekit.pipeline.measure import analyse_run
from routekit.report import drawing, pictures, run_page, run_pictures
from routekit.report.record import read_record
from routekit.training.log import read_metrics

ANALYSIS = "analysis.json"
GONE = (
    "The network of this run is not here: who runs what, images that share a route, and how long routes take are left "
    "out."
)


def report_run(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a finished run: `report.md`, its pictures, `index.html`; returns the files.

    The first time, the test images of a network with several routes are gone through once more, and what was found is
    kept in `analysis.json`; the report is made of what is recorded alone. Where the network is not there, it is made
    of the record and the log. Raises InputError for what is no finished run, or whose images are not there.
    """
    record, kind, out = read_record(path), drawing.known(kind), existing(out)
    analysis, note = _analysis(path, record)
    figures = _figures(path, record, analysis)
    files = {name: out / f"{name}.{kind}" for name in figures}
    for name, figure in figures.items():
        drawing.save(figure, files[name])
    # The page has the routes to click on.
    drawings = {name: drawing.as_svg(figure) for name, figure in figures.items() if name != "routes"}
    page, interactive = out / "report.md", out / "index.html"
    named = {name: file.name for name, file in files.items()}
    write_text(page, run_page.markdown(record, analysis, named, note))
    write_text(interactive, run_page.html(record, analysis, drawings, note))
    return [page, *files.values(), interactive]


def _analysis(path: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """What the network does with its test images, and else why that is left out."""
    if record["routes"]["unique"] == 1:  # nothing is decided
        return None, ""
    kept = path / ANALYSIS
    if not kept.exists():
        if not (path / "network").exists():
            return None, GONE
        write_text(kept, json.dumps(analyse_run(path).to_dict(), indent=2) + "\n")
    found: dict[str, Any] = json.loads(kept.read_text())
    return found, ""


def _figures(path: Path, record: dict[str, Any], analysis: Mapping[str, Any] | None) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if record["method"] == "cascade":
        figures["accuracy-against-cost"] = pictures.accuracy_against_cost([record])
    metrics = _metrics(path)
    if metrics:
        figures["training"] = run_pictures.training(record, metrics)
    if analysis is not None:
        columns, rates = analysis["columns"], record["routes"]["run_rate"]
        overall = [rates[name] for name in columns]
        figures["routes"] = run_pictures.shared_routes(analysis["shared"], columns)
        figures["units"] = run_pictures.who_runs_what(columns, analysis["classes"], analysis["class_rates"], overall)
        figures["lengths"] = run_pictures.by_length(analysis["lengths"])
    if record.get("exits"):
        if metrics:
            figures["dataflow-over-training"] = pictures.dataflow_over_training(record, metrics)
        figures["dataflow"] = pictures.dataflow([record])
    return figures


def draw(runs: list[Path], out: Path, kind: str) -> list[Path]:
    """Draw the finished `runs` as files of the given kind, "svg" or "png", in `out`; returns them.

    Raises InputError for what is no finished run, RoutekitError for what cannot be written.
    """
    kind = drawing.known(kind)
    records = [read_record(run) for run in runs]
    out = existing(out)
    figures = {"accuracy-against-cost": pictures.accuracy_against_cost(records)}
    if any(record.get("exits") for record in records):
        figures["dataflow"] = pictures.dataflow(records)
    for run, record in zip(runs, records, strict=True):
        metrics = _metrics(run)
        if record.get("exits") and metrics:
            name = _another(f"training-{run.resolve().name}", figures)
            figures[name] = pictures.dataflow_over_training(record, metrics)
    files = []
    for name, figure in figures.items():
        files.append(out / f"{name}.{kind}")
        drawing.save(figure, files[-1])
    return files


def _metrics(run: Path) -> list[dict[str, Any]]:
    """The log of a run, if it looked at validation images: a cascade may be made without training."""
    path = run / "metrics.jsonl"
    metrics = read_metrics(path) if path.exists() else []
    return metrics if any(line["kind"] == "validation" for line in metrics) else []


def _another(name: str, taken: Container[str]) -> str:
    """The name, or one like it that is not taken: runs in different folders may be called alike."""
    others = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], others) if each not in taken)
