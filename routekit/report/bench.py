"""A benchmark for readers: text with bars, a picture, a page. All three are made from its record alone."""

from html import escape
from pathlib import Path
from typing import Any

from routekit.errors import InputError
from routekit.files import check_file, write_text
from routekit.macs import describe
from routekit.report.drawing import BLUE, FORMATS, GREY, as_svg, blank, drawable, save
from routekit.report.page import drawn, html_line, html_table, shell
from routekit.runtime.runtime import need

BAR = 40
READ = "The shorter a bar, the faster. The mark shows how short the routed one would be if time went by costs alone."
# Two measurements of one form differ by about this share.
NOISE = 0.05


def bench_text(report: dict[str, Any]) -> str:
    """Render a benchmark for a terminal."""
    lines = [*_heading(report), ""]
    for row in report["rows"]:
        slowest = max(row["dense_ms"], row["routed_ms"])
        lines.append(f"{row['runtime']} on {row['device']}, batch {row['batch']}")
        for side in ("dense", "routed"):
            ms, low, high, memory, form = (row[f"{side}_{of}"] for of in ("ms", "p10", "p90", "memory", "form"))
            bar = "█" * max(1, round(BAR * ms / slowest))
            taken = "memory unknown" if memory is None else f"{memory / 2**20:.1f} MiB"
            lines.append(f"  {side:<6} {ms:>9.2f} ms  {bar:<{BAR}}  {low:.2f} to {high:.2f} ms, {taken} ({form})")
        lines.append(f"  {_verdict(row)}")
    if report["lengths"]:
        lines += ["", "one image at a time, by the length of its route:"]
    lines += [
        f"  {length['runtime']:<9} {length['shortest']} to {length['longest']} units ({100 * length['share']:.0f}% of "
        f"the MACs): {length['routed_ms']:.2f} ms, dense {length['dense_ms']:.2f} ms"
        for length in report["lengths"]
    ]
    return "\n".join(lines)


def bench_html(report: dict[str, Any], path: Path) -> None:
    """Write a benchmark as a page that loads nothing.

    Args:
        report: The record of the benchmark.
        path: The file.

    Raises:
        InputError: Matplotlib is not installed.
        RoutekitError: The file cannot be written.
    """
    columns = ["runtime", "batch", "dense ms", "routed ms", "speed-up", "ideal", "efficiency", "images/s", "break-even"]
    table = html_table(columns, (html_line(map(escape, _cells(row))) for row in report["rows"]))
    heading = "".join(f"<p>{escape(line)}</p>" for line in _heading(report))
    picture = drawn(as_svg(_figure(report)), "Dense against routed", READ)
    write_text(path, shell(f"{report['model']}: dense against routed", f"{heading}{table}\n{picture}"))


def check_drawing(picture: Path | None, page: Path | None, *, force: bool = False) -> None:
    """Check, before anything is timed, that the results can be drawn and written.

    Args:
        picture: The file of the picture, if one is wanted.
        page: The file of the page, if one is wanted.
        force: Whether they may replace files.

    Raises:
        InputError: The format is unknown, Matplotlib is not installed, or a file cannot be written (`check_file`).
    """
    if picture is not None and picture.suffix[1:] not in FORMATS:
        raise InputError(f"--picture {picture}: give a file that ends in .png or .svg")
    for path in (picture, page):
        if path is not None:
            need("matplotlib", "report")
            check_file(path, force=force)


def bench_picture(report: dict[str, Any], path: Path) -> None:
    """Draw a benchmark as a bar chart.

    Args:
        report: The record of the benchmark.
        path: The file, which ends in .png or .svg.

    Raises:
        InputError: Matplotlib is not installed.
        RoutekitError: The file cannot be written.
    """
    save(_figure(report), path)


def _figure(report: dict[str, Any]) -> Any:
    rows = report["rows"]
    axes = blank(8, 1.6 + 0.5 * len(rows)).subplots()
    places = range(len(rows))
    axes.barh([p - 0.2 for p in places], [1.0] * len(rows), 0.38, color=GREY, label="dense")
    shares = [row["routed_ms"] / row["dense_ms"] for row in rows]
    axes.barh([p + 0.2 for p in places], shares, 0.38, color=BLUE, label="routed")
    axes.plot([1 / row["ideal"] for row in rows], [p + 0.2 for p in places], "k|", markersize=12, label="ideal")
    for place, row, share in zip(places, rows, shares, strict=True):
        axes.text(share, place + 0.2, f" {row['routed_ms']:.2f} ms, {row['speedup']:.2f}x", va="center", fontsize=8)
        axes.text(1.0, place - 0.2, f" {row['dense_ms']:.2f} ms", va="center", fontsize=8)
    axes.set_yticks(list(places), [f"{row['runtime']}, batch {row['batch']}" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel="time, the fastest dense form = 1", xlim=(0, 1.2 * max(1.0, *shares)))
    axes.set_title(drawable(f"{report['model']}: {_kept(report)}"), fontsize=10)
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return axes.figure


def _heading(report: dict[str, Any]) -> list[str]:
    """Two lines: what was measured, and on what."""
    where = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return [
        f"{report['model']} ({report['network']}): {_kept(report)}, dense {describe(report['flops']['dense'])}",
        f"{report['images']} test images of {report['data']}; {where['device']}, {where['threads']} threads, float32, "
        f"{versions}, {where['date']}",
    ]


def _kept(report: dict[str, Any]) -> str:
    kept = f"{100 * report['flops']['realized'] / report['flops']['dense']:.1f}% of the MACs kept, routers included"
    return kept if report["run_rate"] is None else f"{kept} (routers set to a run rate, not trained)"


def _verdict(row: dict[str, Any]) -> str:
    if row["speedup"] > 1 + NOISE:
        pays = "faster"
    elif row["speedup"] > 1 - NOISE:
        pays = "no clear difference"
    else:
        pays = "SLOWER: run the dense network instead"
    *_, speedup, ideal, efficiency, rate, even = _cells(row)
    below = f"; pays below {even} of the MACs" if even else ""
    return f"{speedup}x of the ideal {ideal}x, efficiency {efficiency}: {pays}{below}; {rate} images/s"


def _cells(row: dict[str, Any]) -> list[str]:
    """The entries of a line of the page's table."""
    figures = (f"{row[name]:.2f}" for name in ("dense_ms", "routed_ms", "speedup", "ideal", "efficiency"))
    even = "" if row["break_even"] is None else f"{100 * row['break_even']:.0f}%"
    return [row["runtime"], str(row["batch"]), *figures, f"{row['images_per_second']:.0f}", even]
