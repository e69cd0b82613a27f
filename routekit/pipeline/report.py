"""The report of a run, and the pictures of several runs, drawn from their records."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.files import check_file, existing, write_text
from routekit.manifest import verify
from routekit.pipeline.analyse import Analysis
from routekit.pipeline.explore import Explored, digest
from routekit.pipeline.measure import explore_run
from routekit.report import drawing, pictures, run_page, run_pictures
from routekit.report.record import RECORD, read_record
from routekit.report.run_page import Contents
from routekit.training.log import read_metrics

ANALYSIS, EXPLORED = "analysis.json", "explored.json"
Kind = TypeVar("Kind")
GONE = "{}: who runs what, images that share a route, and how long routes take are left out."


def report_run(path: Path, out: Path, kind: str, *, force: bool = False) -> list[Path]:
    """Write the report of a finished run: `report.md`, its pictures, and `index.html`.

    The first time, the test images are run once more, and what is found is written to `analysis.json` and
    `explored.json`. The report itself is made from files alone. Without the network, it is made from the record and
    the log.

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
    contents = _contents(path, record)
    figures = _figures(path, contents)
    page, interactive = out / "report.md", out / "index.html"
    for each in (page, interactive):
        check_file(each, force=force)
    files = _save(figures, out, kind, force=force)
    # The page has routes to click on in place of their picture.
    drawings = {name: drawing.as_svg(figure) for name, figure in figures.items() if name != "routes"}
    curve = contents.curve
    points = [(curve.cost(each), 100 * each.accuracy) for each in curve.settings]
    places = drawing.places(figures[run_page.CURVE], points)
    named = {name: file.name for name, file in files.items()}
    write_text(page, run_page.markdown(contents, named))
    write_text(interactive, run_page.html(contents, drawings, places))
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


def _contents(path: Path, record: dict[str, Any]) -> Contents:
    """What is known of a run. What was found of its present record is kept; else it is found anew, if it can be."""
    explored, decides, note = _kept(path / EXPLORED, Explored), record["routes"]["unique"] > 1, ""
    outdated = explored is not None and explored.of != digest(record)
    if explored is None or outdated:
        explored, note = _explore(path, needed=decides and not (path / ANALYSIS).exists())
    settings = [] if explored is None else explored.settings
    changes = None if explored is None or explored.changes is None else asdict(explored.changes)
    analysis = _kept(path / ANALYSIS, Analysis) if decides and (explored is not None or not outdated) else None
    if analysis is None:
        return Contents(record, None, settings, changes, note if decides else "")
    if lost := set(analysis.columns) - set(record["routes"]["run_rate"]):
        raise InputError(f"{path / ANALYSIS} and {RECORD} are of two networks: only one of them has {min(lost)}")
    return Contents(record, analysis.to_dict(), settings, changes)


def _explore(path: Path, *, needed: bool) -> tuple[Explored | None, str]:
    """Run the test images once more, and write what is found; where that cannot be done, why.

    Raises InputError if it is needed: nobody has looked at the routes before.
    """
    if not (path / "network").exists():
        return None, GONE.format("The network of this run is not here")
    try:
        analysis, explored = explore_run(path)
    except InputError:
        if needed:
            raise
        return None, GONE.format("The images of this run are not here")
    for name, found in ((ANALYSIS, analysis), (EXPLORED, explored)):
        if found is not None:
            write_text(path / name, json.dumps(asdict(found), indent=2) + "\n")
    return explored, ""


def _kept(file: Path, kind: type[Kind]) -> Kind | None:
    """What a file holds that a former report wrote; None if there is none."""
    if not file.exists():
        return None
    verify(file)
    try:
        return TypeAdapter(kind).validate_python(parse_json(read_document(file), file))
    except ValidationError as error:
        raise InputError(f"{file} is damaged: delete it, and it is made again") from error


def _figures(path: Path, contents: Contents) -> dict[str, Any]:
    record, analysis = drawing.drawable(contents.record), drawing.drawable(contents.analysis)
    figures: dict[str, Any] = {run_page.CURVE: run_pictures.curve(contents.curve)}
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
        # A ladder was trained with all of its forms, and it runs some of them.
        if metrics and record["method"] != "ladder":
            figures["dataflow-over-training"] = pictures.dataflow_over_training(record, metrics)
        figures["dataflow"] = pictures.dataflow([record])
    return figures


def _metrics(run: Path) -> list[dict[str, Any]]:
    """The log of a run, if it has validation lines: a cascade may be made without training."""
    path = run / "metrics.jsonl"
    metrics = read_metrics(path) if path.exists() else []
    return metrics if any(line["kind"] == "validation" for line in metrics) else []
