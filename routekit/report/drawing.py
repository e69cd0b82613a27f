"""What all pictures share: sizes, colours, axes, and how they are written, always as the same bytes."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from routekit.errors import InputError
from routekit.files import write_atomically
from routekit.runtime.runtime import need

FORMATS = ("svg", "png")
# The width of a picture, inches: on a phone, its letters are as large as the small letters of the text.
WIDTH = 5.2
GREY, BLUE, ORANGE, GREEN = "#8a929a", "#1a73e8", "#ff7f0e", "#2ca02c"
# Ten colours, then the same ten with another marker, which Matplotlib and Plotly name differently.
COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip
MARKERS = (("o", "circle"), ("s", "square"), ("v", "triangle-down"))


def known(kind: str) -> str:
    """Check a format of pictures, and return it.

    Raises InputError for an unknown format, or if Matplotlib is not installed.
    """
    if kind not in FORMATS:
        raise InputError(f"unknown format {kind!r}: {' or '.join(FORMATS)}")
    need("matplotlib", "report")
    return kind


def drawable(value: Any) -> Any:
    """Return a document with its words as Matplotlib can draw them: no formulas, and no signs without a picture."""
    if isinstance(value, Mapping):
        return {drawable(key): drawable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [drawable(each) for each in value]
    if not isinstance(value, str):
        return value
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in value).replace("$", r"\$")


def looks(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Give each name a colour and a marker, by Matplotlib's and by Plotly's name.

    The same names get the same colours and markers in every picture.
    """
    return {
        name: (COLOURS[number % len(COLOURS)], *MARKERS[number // len(COLOURS) % len(MARKERS)])
        for number, name in enumerate(sorted(set(names)))
    }


def blank(width: float, height: float) -> Any:
    """Make an empty figure.

    Args:
        width: Inches.
        height: Inches.

    Returns:
        The figure.

    Raises:
        InputError: Matplotlib is not installed.
    """
    need("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(width: float, height: float, rows: int, columns: int, **more: Any) -> Any:
    """Make a figure of several axes.

    Args:
        width: The width of the figure, inches.
        height: Its height, inches.
        rows: How many axes are below each other.
        columns: How many axes are beside each other.
        **more: More arguments of Matplotlib's `subplots`.

    Returns:
        The axes, an array `[rows, columns]`.
    """
    return blank(width, height).subplots(rows, columns, squeeze=False, **more)


def stacked(titles: Sequence[str], xlabel: str, height: float = 1.6) -> list[Any]:
    """Make panels below each other, which share an x axis of whole numbers.

    Args:
        titles: A title for each panel.
        xlabel: The label of the x axis.
        height: The height of a panel, inches.

    Returns:
        The axes of each panel.
    """
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
    """Draw joined points, with an error bar for each deviation that is not 0.

    Args:
        axes: The axes.
        points: x, y and the deviation over seeds of each point.
        look: The colour and the markers, by `looks`.
        label: The label in the legend.
    """
    colour, marker, _ = look
    x, y, spread = np.reshape(sorted(points), (-1, 3)).T
    axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1, label=drawable(label))
    if spread.any():
        varied = spread != 0
        axes.errorbar(x[varied], y[varied], yerr=spread[varied], fmt="none", ecolor=colour, capsize=2)


def save(figure: Any, path: Path) -> None:
    """Write a figure to a file.

    Args:
        figure: The figure.
        path: The file; its ending names the format.

    Raises:
        RoutekitError: The file cannot be written.
    """
    write_atomically(path, lambda stream: _draw(figure, stream, path.suffix[1:]))


def as_svg(figure: Any) -> str:
    """Write a figure as the SVG document of a page: without a background, and in the page's text colour."""
    stream = io.BytesIO()
    _draw(figure, stream, "svg", transparent=True)
    return stream.getvalue().decode().replace("#000000", "currentColor")


def places(figure: Any, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Find where points lie in the SVG of a figure that was drawn (`as_svg`).

    Args:
        figure: The figure. Points are of its first axes.
        points: Their x and y.

    Returns:
        Their x and y in the units of the SVG.
    """
    found = figure.axes[0].transData.transform(list(points)) * 72 / figure.dpi  # what an SVG has in an inch
    height = 72 * figure.get_figheight()
    return [(float(x), float(height - y)) for x, y in found]


def _draw(figure: Any, stream: IO[bytes], kind: str, **more: Any) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "routekit"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, metadata=metadata, dpi=120, **more)
