"""A benchmark for people: text with bars, a picture, a page. Everything is drawn from its record."""

from html import escape
from pathlib import Path
from typing import Any

from routekit.errors import InputError
from routekit.files import write_text
from routekit.macs import describe
from routekit.report.drawing import BLUE, GREY, as_svg, save, single
from routekit.report.page import drawn, shell
from routekit.runtime.runtime import need

BAR = 40
READ = "The shorter a bar, the faster. The mark shows how short the routed one would be if time went by costs alone."
# Two measurements of one form differ by so much.
NOISE = 0.05
PICTURES = (".png", ".svg")


def bench_text(report: dict[str, Any]) -> str:
    """Render a benchmark for a terminal."""
    lines = [*_heading(report), ""]
    for row in report["rows"]:
        slowest = max(row["dense_ms"], row["routed_ms"])
        lines.append(f"{row['runtime']} on {row['device']}, batch {row['batch']}")
        for side in ("dense", "routed"):
            bar = "█" * max(1, round(BAR * row[f"{side}_ms"] / slowest))
            spread = f"{row[f'{side}_p10']:.2f} to {row[f'{side}_p90']:.2f}"
            memory = _memory(row[f"{side}_memory"])
            lines.append(
                f"  {side:<6} {row[f'{side}_ms']:>9.2f} ms  {bar:<{BAR}}  {spread} ms, {memory} ({row[f'{side}_form']})"
            )
        lines.append(f"  {_verdict(row)}")
    if report["lengths"]:
        lines += ["", "one image at a time, by the length of its route:"]
        for length in report["lengths"]:
            lines.append(
                f"  {length['runtime']:<9} {length['shortest']} to {length['longest']} units "
                f"({100 * length['share']:.0f}% of the MACs): {length['routed_ms']:.2f} ms, "
                f"dense {length['dense_ms']:.2f} ms"
            )
    return "\n".join(lines)


def bench_html(report: dict[str, Any], path: Path) -> None:
    """Write one self-contained page. Raises RoutekitError if it cannot be written."""
    columns = ["runtime", "batch", "dense ms", "routed ms", "speed-up", "ideal", "efficiency", "images/s", "break-even"]
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row)) for row in report["rows"])
    lines = "".join(f"<p>{escape(line)}</p>" for line in _heading(report))
    page = shell(
        f"{report['model']}: dense against routed",
        f"{lines}<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
        f"{drawn(as_svg(_figure(report)), 'Dense against routed', READ)}",
    )
    write_text(path, page)


def check_drawing(picture: Path | None, page: Path | None) -> None:
    """Raise InputError, before anything is timed, for what could not be drawn or written afterwards."""
    if picture is not None and picture.suffix not in PICTURES:
        raise InputError(f"--picture {picture}: give a file that ends in {' or '.join(PICTURES)}")
    for path in (picture, page):
        if path is not None:
            need("matplotlib", "report")
            if not path.absolute().parent.is_dir():
                raise InputError(f"{path} cannot be written: there is no folder {path.parent}")


def bench_picture(report: dict[str, Any], path: Path) -> None:
    """Draw a bar chart as .png or .svg. Raises RoutekitError if it cannot be written."""
    save(_figure(report), path)


def _figure(report: dict[str, Any]) -> Any:
    rows = report["rows"]
    axes = single(8, 1.6 + 0.5 * len(rows))
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
    axes.set_xlabel("time, the fastest dense form = 1")
    axes.set_xlim(0, 1.2 * max(1.0, *shares))
    axes.set_title(f"{report['model']}: {_kept(report)}", fontsize=10)
    axes.figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return axes.figure


def _heading(report: dict[str, Any]) -> list[str]:
    where, versions = report["environment"], report["versions"]
    return [
        f"{report['model']} ({report['network']}): {_kept(report)}, dense {describe(report['flops']['dense'])}",
        f"{report['images']} test images of {report['data']}; {where['device']}, {where['threads']} threads, float32, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f", {where['date']}",
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
    said = f"{row['speedup']:.2f}x of the ideal {row['ideal']:.2f}x, efficiency {row['efficiency']:.2f}: {pays}"
    if row["break_even"] is not None:
        said += f"; pays below {100 * row['break_even']:.0f}% of the MACs"
    return f"{said}; {row['images_per_second']:.0f} images/s"


def _cells(row: dict[str, Any]) -> list[str]:
    even = "" if row["break_even"] is None else f"{100 * row['break_even']:.0f}%"
    return [
        row["runtime"],
        str(row["batch"]),
        f"{row['dense_ms']:.2f}",
        f"{row['routed_ms']:.2f}",
        f"{row['speedup']:.2f}",
        f"{row['ideal']:.2f}",
        f"{row['efficiency']:.2f}",
        f"{row['images_per_second']:.0f}",
        even,
    ]


def _memory(size: int | None) -> str:
    return "memory unknown" if size is None else f"{size / 2**20:.1f} MiB"
