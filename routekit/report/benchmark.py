"""A benchmark of all runtimes for readers, made from its record: as text, in Markdown and as a page."""

from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from routekit.files import write_text
from routekit.report.page import html_line, html_table, in_markdown, markdown_table, prose, shell

RUNTIMES = {
    "torch": "torch",
    "compile": "torch.compile",
    "aot": "AOTInductor",
    "onnx": "onnxruntime",
    "openvino": "OpenVINO",
}
READ = (
    "right: test images that get the right class; same: those that get the class that torch gives in float32; ms: an "
    "image's median, on average over images; p95: of single calls; x: times as fast as the dense network in float32 "
    "in the same runtime."
)
# Wide enough for any table: it is as wide as it has to be.
WIDE = 1000


def benchmark_text(report: dict[str, Any]) -> str:
    """Render a benchmark for a terminal, in 80 columns for two batch sizes."""
    head, lines = _head(report["batches"]), _lines(report)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for place, title in enumerate(head):
        table.add_column(title, justify="right" if place else "left", no_wrap=True, vertical="bottom")
    for line in lines:
        table.add_row(*line)
    console = Console(file=StringIO(), width=WIDE, color_system=None, markup=False)
    console.print(table)
    rows = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    return "\n".join([*_heading(report), "", *(rows if lines else []), "", *_sentences(report), READ])


def benchmark_html(report: dict[str, Any], path: Path) -> None:
    """Write a benchmark as a page that loads nothing.

    Args:
        report: The record of the benchmark.
        path: The file.

    Raises:
        RoutekitError: The file cannot be written.
    """
    head = [" ".join(title.split()) for title in _head(report["batches"])]
    table = html_table(head, (html_line(map(escape, line)) for line in _lines(report)))
    heading, told = (
        "".join(f"<p>{prose(line)}</p>" for line in lines) for lines in (_heading(report), [*_sentences(report), READ])
    )
    write_text(path, shell(f"{report['run']}: runtimes and precisions", f"{heading}{table}\n{told}"))


def benchmark_markdown(report: dict[str, Any]) -> str:
    """Render a benchmark in Markdown: the table, then the sentences below it."""
    head = [" ".join(title.split()) for title in _head(report["batches"])]
    table = markdown_table(head, [list(map(in_markdown, line)) for line in _lines(report)])
    return "\n\n".join([table, *map(in_markdown, [*_heading(report), *_sentences(report), READ])])


def _heading(report: dict[str, Any]) -> list[str]:
    where = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in _versions(report).items())
    return [
        f"{report['run']} ({report['network']}) on {report['images']} test images of {report['data']}",
        f"{where['device']}, threads: {where['threads']}, {versions}, {where['date']}",
    ]


def _versions(report: dict[str, Any]) -> dict[str, str]:
    packages = {"onnx": "onnxruntime", "openvino": "OpenVINO"}
    return {packages.get(name, "torch"): version for name, version in report["versions"].items()}


def _head(batches: Sequence[int]) -> list[str]:
    timed = [title for batch in batches for title in (f"batch {batch}\nms", "p95", "x")]
    return ["", "right", "same", "MB", *timed]


def _lines(report: dict[str, Any]) -> list[list[str]]:
    """The entries of a line of the table for each row that is there."""
    rows = [row for row in report["rows"] if "reason" not in row]
    dense = {row["runtime"]: row["times"] for row in rows if (row["precision"], row["network"]) == ("fp32", "dense")}
    lines = []
    for row in rows:
        line = [
            _name(row),
            f"{100 * row['accuracy']:.2f}",
            "" if row["agreement"] is None else f"{100 * row['agreement']:.1f}",
            f"{row['bytes'] / 1e6:.2f}",
        ]
        for batch in map(str, report["batches"]):
            times, reference = row["times"][batch], dense.get(row["runtime"], {}).get(batch)
            faster = "" if reference is None else f"{reference['ms'] / times['ms']:.2f}"
            line += [f"{times['ms']:.2f}", f"{times['p95']:.2f}", faster]
        lines.append(line)
    return lines


def _name(row: dict[str, Any]) -> str:
    return f"{row['runtime']} {row['precision']} {row['network']}"


def _sentences(report: dict[str, Any]) -> list[str]:
    """What to ship, what is not there, and what is to be known."""
    missing: dict[tuple[str, str], list[str]] = {}
    for row in report["rows"]:
        if "reason" in row:
            missing.setdefault((row["runtime"], row["reason"]), []).append(f"{row['precision']} {row['network']}")
    gone = [
        f"not here: {RUNTIMES[runtime]} ({', '.join(which)}): {reason}" for (runtime, reason), which in missing.items()
    ]
    return [*(said for advice in report["advice"] for said in _advised(report, advice)), *gone, *report["notes"]]


def _advised(report: dict[str, Any], advice: dict[str, Any]) -> list[str]:
    rows = {_name(row): row for row in report["rows"]}
    row, best, batch = rows[advice["ship"]], rows[advice["best"]], advice["batch"]
    times = row["times"][str(batch)]
    why = {
        "noise": "on validation images, it is the fastest that is within one standard error of the best",
        "time": "on validation images, it is the fastest that is within one standard error of the best in {} ms, at "
        "which the run is aimed",
        "drop": "on validation images, it is the fastest that loses no more than the run may",
    }[advice["why"]]
    if advice["why"] == "time":
        why = why.format(f"{advice['most_ms']:.2f}")
    beside = f", {_name(best)}" if best is not row else ""
    aimed = "" if advice["met"] else " Nothing here meets the aim of the run."
    said = [
        f"at batch {batch}, ship {advice['ship']}: {times['ms']:.2f} ms an image, {100 * row['accuracy']:.2f}% of the "
        f"test images right, {row['bytes'] / 1e6:.2f} MB; {why}{beside}.{aimed}"
    ]
    if row["network"] == "dense" and {each["network"] for each in rows.values()} != {"dense"}:
        which = "in float32: nothing pays here" if row["precision"] == "fp32" else f"in {row['precision']}"
        said.append(f"at batch {batch}, the dense network is the better choice, {which}.")
    return said
