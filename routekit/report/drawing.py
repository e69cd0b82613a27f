"""What all pictures have in common: their size and colours, and how they are written, always in the same bytes."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from routekit.errors import InputError
from routekit.files import write_atomically
from routekit.runtime.runtime import need

FORMATS = ("svg", "png")
# So wide is a picture, inches: on a phone, its letters are as large as the text's small ones.
WIDTH = 5.2
GREY, BLUE, ORANGE, GREEN = "#8a929a", "#1a73e8", "#ff7f0e", "#2ca02c"
# Ten colours, then the same ten with another marker; as Matplotlib and as Plotly call it.
COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
MARKERS = (("o", "circle"), ("s", "square"), ("v", "triangle-down"))


def known(kind: str) -> str:
    """The kind of picture. Raises InputError for one that there is not, or without what draws it."""
    if kind not in FORMATS:
        raise InputError(f"unknown format {kind!r}: {' or '.join(FORMATS)}")
    need("matplotlib", "report")
    return kind


def looks(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Colour and marker, Matplotlib's and Plotly's, of each name: the same in every picture that has the same names."""
    return {
        name: (COLOURS[number % len(COLOURS)], *MARKERS[number // len(COLOURS) % len(MARKERS)])
        for number, name in enumerate(sorted(set(names)))
    }


def blank(width: float, height: float) -> Any:
    """An empty figure, inches."""
    need("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(width: float, height: float, rows: int, columns: int, **more: Any) -> Any:
    """[rows, columns] axes of one figure."""
    return blank(width, height).subplots(rows, columns, squeeze=False, **more)


def single(width: float, height: float) -> Any:
    """The axes of a figure that has but these."""
    return grid(width, height, 1, 1)[0, 0]


def stacked(titles: Sequence[str], xlabel: str, height: float = 1.6) -> list[Any]:
    """One panel below the other, each with its title: all of them share their x, whose ticks are whole numbers."""
    panels = list(grid(WIDTH, height * len(titles) + 0.3, len(titles), 1, sharex=True)[:, 0])
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10, loc="left")
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel(xlabel)
    whole(panels[-1].xaxis)
    return panels


def whole(axis: Any) -> None:
    """Let the ticks of an axis be whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def line(axes: Any, points: Sequence[tuple[float, float, float]], look: tuple[str, str, str], label: str) -> None:
    """Points (x, y, deviation over seeds) of one kind, joined, with a bar where there is a deviation."""
    colour, marker, _ = look
    points = sorted(points)
    axes.plot(*np.reshape(points, (-1, 3)).T[:2], color=colour, marker=marker, markersize=4, linewidth=1, label=label)
    varied = [point for point in points if point[2]]
    if varied:
        x, y, spread = zip(*varied, strict=True)
        axes.errorbar(x, y, yerr=spread, fmt="none", ecolor=colour, capsize=2)


def save(figure: Any, path: Path) -> None:
    """Write a figure, by the ending of `path`. Raises RoutekitError if it cannot be written."""
    write_atomically(path, lambda stream: _draw(figure, stream, path.suffix[1:]))


def as_svg(figure: Any) -> str:
    """A figure as the text of an SVG document that stands in a page: without paper, and in the page's own ink."""
    stream = io.BytesIO()
    _draw(figure, stream, "svg", transparent=True)
    return stream.getvalue().decode().replace("#000000", "currentColor")


def _draw(figure: Any, stream: IO[bytes], kind: str, **more: Any) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "routekit"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, metadata=metadata, dpi=120, **more)
