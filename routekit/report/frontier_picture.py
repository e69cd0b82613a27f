"""The picture of a comparison: accuracy against cost, a panel for each scale of costs."""

from collections.abc import Sequence
from typing import Any

from routekit.report.comparison import Row, frontier, lower_edge, scales
from routekit.report.drawing import GREY, blank, drawable, line, looks

# The width of the picture, and the heights of the first panel and of the panels below it, in inches.
WIDE, FIRST, FURTHER = 8, 4.2, 3.2


def frontier_picture(table: Sequence[Row], dense: float) -> Any:
    """Draw accuracy against cost: one line for each method, bars of one standard deviation over seeds.

    The panel for MACs has the whole width. Panels for milliseconds, by runtime and batch size, follow two by two. A row
    far below the dense network (`lower_edge`) is an arrow at the lower edge.

    Args:
        table: The rows.
        dense: The accuracy of the network that all methods began with, percent.

    Returns:
        The figure.
    """
    titles = scales(table)
    below = [*range(1, len(titles)), "."]
    places = [[0, 0], *([left, right] for left, right in zip(below[::2], below[1::2], strict=False))]
    heights = [FIRST, *[FURTHER] * (len(places) - 1)]
    figure = blank(WIDE, sum(heights) + 0.6)
    panels = figure.subplot_mosaic(places, height_ratios=heights)
    for place, title in enumerate(titles):
        _panel(panels[place], table, dense, title)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _panel(panel: Any, table: Sequence[Row], dense: float, scale: str) -> None:
    look = looks(row.label for row in table)
    known = [row for row in table if scale in row.costs]
    for label in look:
        points = [(row.costs[scale], row.accuracy, row.spread) for row in known if row.label == label]
        line(panel, points, look[label], label)
    best = frontier(table, scale)
    steps = {"drawstyle": "steps-post", "color": GREY, "linewidth": 6, "alpha": 0.4, "zorder": 1}
    panel.plot([row.costs[scale] for row in best], [row.accuracy for row in best], label="frontier", **steps)
    panel.axhline(dense, color="black", linestyle=":", linewidth=1, label="dense, to begin with")
    panel.grid(alpha=0.3)
    panel.set_title(scale, fontsize=10, loc="left")
    panel.set_ylabel("accuracy, %")
    edge = lower_edge(table, dense)
    if edge is None:
        return
    panel.set_ylim(bottom=edge)
    middle = sum(panel.get_xlim()) / 2
    # An arrow down for each row below the edge, with its accuracy on the side where there is more room.
    for rank, row in enumerate(row for row in known if row.accuracy < edge):
        x, colour = row.costs[scale], look[row.label][0]
        side = 5 if x <= middle else -5
        along = {"xycoords": panel.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 8, "color": colour}
        arrow = {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", (x, 0), (0, 14 + 11 * rank), arrowprops=arrow, **along)
        text, align = f"{row.label} {row.accuracy:.2f}", "left" if side > 0 else "right"
        panel.annotate(drawable(text), (x, 0), (side, 8 + 11 * rank), ha=align, **along)
