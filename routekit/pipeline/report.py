"""The report of a run, and the pictures of several runs, drawn from their records."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.files import check_file, existing, write_text
from routekit.manifest import verify
from routekit.pipeline.analyse import Analysis
from routekit.pipeline.measure import analyse_run
from routekit.report import drawing, pictures, run_page, run_pictures
from routekit.report.record import RECORD, read_record
from routekit.training.log import read_metrics

ANALYSIS = "analysis.json"
GONE = (
    "The network of this run is not here: who runs what, images that share a route, and how long routes take are left "
    "out."
)


def report_run(path: Path, out: Path, kind: str, *, force: bool = False) -> list[Path]:
    """Write the report of a finished run: `report.md`, its pictures, and `index.html`.

    The first time, the test images are run once more, and the analysis is written to `analysis.json`. The report itself
    is made from files alone. Without the network, it is made from the record and the log.

    Args:
        path: The run.
        out: The folder to write to.
        kind: The format of the pictures: "svg" or "png".
        force: Whether they may replace files that routekit did not write.

    Returns:
        The files.

    Raises:
        InputError: The run is not finished, its images are not there, or the format is unknown.
    """
    record, kind, out = read_record(path), drawing.known(kind), existing(out)
    analysis, note = _analysis(path, record)
    figures = _figures(path, drawing.drawable(record), drawing.drawable(analysis))
    page, interactive = out / "report.md", out / "index.html"
    for each in (page, interactive):
        check_file(each, force=force)
    files = _save(figures, out, kind, force=force)
    # The page has routes to click on in place of their picture.
    drawings = {name: drawing.as_svg(figure) for name, figure in figures.items() if name != "routes"}
    named = {name: file.name for name, file in files.items()}
    write_text(page, run_page.markdown(record, analysis, named, note))
    write_text(interactive, run_page.html(record, analysis, drawings, note))
    return [page, *files.values(), interactive]


def draw(runs: list[Path], out: Path, kind: str, *, force: bool = False) -> list[Path]:
    """Draw several finished runs together.

    Args:
        runs: The runs.
        out: The folder to write to.
        kind: The format of the pictures: "svg" or "png".
        force: Whether they may replace files that routekit did not write.

    Returns:
        The pictures.

    Raises:
        InputError: A run is not finished, or the format is unknown.
        RoutekitError: A picture cannot be written.
    """
    kind = drawing.known(kind)
    records = [drawing.drawable(read_record(run)) for run in runs]
    figures = {"accuracy-against-cost": pictures.accuracy_against_cost(records)}
    if any(record.get("exits") for record in records):
        figures["dataflow"] = pictures.dataflow(records)
    for run, record in zip(runs, records, strict=True):
        metrics = _metrics(run)
        if record.get("exits") and metrics:
            name, number = f"training-{run.resolve().name}", 2
            while name in figures:  # runs in different folders may have one name
                name, number = f"training-{run.resolve().name}-{number}", number + 1
            figures[name] = pictures.dataflow_over_training(record, metrics)
    return list(_save(figures, existing(out), kind, force=force).values())


def _save(figures: Mapping[str, Any], out: Path, kind: str, *, force: bool) -> dict[str, Path]:
    """Write figures as files -> the file of each."""
    files = {name: out / f"{name}.{kind}" for name in figures}
    for file in files.values():
        check_file(file, force=force)
    for name, figure in figures.items():
        drawing.save(figure, files[name])
    return files


def _analysis(path: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The analysis of the run, and why there is none where a reader would expect one."""
    if record["routes"]["unique"] == 1:  # nothing is decided
        return None, ""
    kept = path / ANALYSIS
    if not kept.exists():
        if not (path / "network").exists():
            return None, GONE
        write_text(kept, json.dumps(analyse_run(path).to_dict(), indent=2) + "\n")
    verify(kept)
    try:
        found = TypeAdapter(Analysis).validate_python(parse_json(read_document(kept), kept)).to_dict()
    except ValidationError as error:
        raise InputError(f"{kept} is damaged: delete it, and it is made again") from error
    if lost := set(found["columns"]) - set(record["routes"]["run_rate"]):
        raise InputError(f"{kept} and {RECORD} are of two networks: only one of them has {min(lost)}")
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


def _metrics(run: Path) -> list[dict[str, Any]]:
    """The log of a run, if it has validation lines: a cascade may be made without training."""
    path = run / "metrics.jsonl"
    metrics = read_metrics(path) if path.exists() else []
    return metrics if any(line["kind"] == "validation" for line in metrics) else []
