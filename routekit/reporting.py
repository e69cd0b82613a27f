"""Draw recorded runs: the pictures that there are for them, into a folder."""

from pathlib import Path

from routekit.errors import InputError
from routekit.report import pictures
from routekit.report.record import read_record
from routekit.runtime.runtime import need
from routekit.training.log import read_metrics


def draw(runs: list[Path], out: Path, kind: str) -> list[Path]:
    """Draw the finished `runs` as files of the given kind, "svg" or "png", in `out`; returns them.

    Raises InputError for what is no finished run, or cannot be written.
    """
    if kind not in pictures.FORMATS:
        raise InputError(f"unknown format {kind!r}: {' or '.join(pictures.FORMATS)}")
    need("matplotlib", "report")
    records = [read_record(run) for run in runs]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror}") from error
    figures = {"accuracy-against-cost": pictures.accuracy_against_cost(records)}
    if any(record.get("exits") for record in records):
        figures["dataflow"] = pictures.dataflow(records)
    for run, record in zip(runs, records, strict=True):
        if record.get("exits") and (run / "metrics.jsonl").exists():
            metrics = read_metrics(run / "metrics.jsonl")
            figures[f"training-{run.resolve().name}"] = pictures.dataflow_over_training(record, metrics)
    files = []
    for name, figure in figures.items():
        files.append(out / f"{name}.{kind}")
        pictures.save(figure, files[-1])
    return files
