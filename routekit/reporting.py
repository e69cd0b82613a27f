"""Draw recorded runs: the pictures that there are for them, into a folder."""

import itertools
import json
from collections.abc import Container
from pathlib import Path

from routekit.comparison.commands import command_of
from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.results import measured
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.files import write_atomically
from routekit.report import pictures, run_page
from routekit.report.comparison import rows
from routekit.report.comparison_page import comparison_page, how_measured, title_of, verdict
from routekit.report.page import comparison_html
from routekit.report.record import read_record
from routekit.results import analyse_run
from routekit.runtime.runtime import need
from routekit.training.log import read_metrics

ANALYSIS = "analysis.json"


def report_comparison(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a comparison: `report.md`, the picture of its frontier, `index.html`; returns the files.

    It is made of what is recorded alone: the same cells give the same bytes. Raises InputError if no cell is done yet.
    """
    folder, plan = ComparisonFolder.open(path)
    cells = measured(folder, plan)
    if not cells:
        raise InputError(f"no cell of {path} is done yet: go on with `routekit compare --resume {path}`")
    table, how = rows(cells), how_measured(cells, read_timings(folder))
    out = _made(out)
    picture = out / f"frontier.{_known(kind)}"
    pictures.save(pictures.frontier_picture(table), picture)
    page = out / "report.md"
    written = comparison_page(
        plan.model_dump(mode="json"), cells, table, picture=picture.name, planned=len(list(plan.cells())), how=how
    )
    page.write_text(written, encoding="utf-8")
    interactive = out / "index.html"
    first = {(cell.method, cell.budget): command_of(plan, cell) for cell in reversed(list(plan.cells()))}
    title = title_of(plan.model_dump(mode="json"), cells)
    html = comparison_html(table, first, title=title, said=verdict(cells), how=how)
    interactive.write_text(html, encoding="utf-8")
    return [page, picture, interactive]


def report_run(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a finished run: `report.md`, its pictures, `index.html`; returns the files.

    The first time, the run's test images are gone through once more, and what was found is kept in `analysis.json`;
    the report is made of what is recorded alone. Raises InputError for a run without its own network or images.
    """
    record, kind, out = read_record(path), _known(kind), _made(out)
    kept = path / ANALYSIS
    if not kept.exists():
        text = json.dumps(analyse_run(path).to_dict(), indent=2) + "\n"
        write_atomically(kept, lambda stream: stream.write(text.encode()))
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
    kind = _known(kind)
    records = [read_record(run) for run in runs]
    out = _made(out)
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


def _known(kind: str) -> str:
    """The kind of picture. Raises InputError for one that there is not, or without what draws it."""
    if kind not in pictures.FORMATS:
        raise InputError(f"unknown format {kind!r}: {' or '.join(pictures.FORMATS)}")
    need("matplotlib", "report")
    return kind


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror}") from error
    return out
