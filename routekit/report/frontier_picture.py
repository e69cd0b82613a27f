"""The picture of a comparison: accuracy against cost, by every way to tell the cost."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from routekit.report.comparison import Row, frontier, lower_edge, placed, scales
from routekit.report.drawing import GREY, blank, line, looks

# Inches: all panels together are so wide, and so high are the first one and those below it.
WIDE, FIRST, FURTHER = 8, 4.2, 3.2


def frontier_picture(table: Sequence[Row], dense: float) -> Any:
    """Accuracy against cost, one line for each method, bars of one standard deviation over seeds.

    A panel for each way to tell the cost: MACs over the whole width and, of what was timed, milliseconds in each
    runtime, at each batch size, two by two below. `dense` is the accuracy of the network that all began with, percent:
    what is far below it (`lower_edge`) is an arrow at the lower edge.
    """
    costs = scales(table)
    down = math.ceil((len(costs) - 1) / 2)
    places = [[0, 0], *([2 * row + 1, 2 * row + 2 if 2 * row + 2 < len(costs) else "."] for row in range(down))]
    heights = [FIRST, *[FURTHER] * down]
    figure = blank(WIDE, sum(heights) + 0.6)
    panels = figure.subplot_mosaic(places, height_ratios=heights)
    for place, (title, cost) in enumerate(costs.items()):
        _panel(panels[place], table, dense, cost)
        panels[place].set_title(title, fontsize=10, loc="left")
        panels[place].set_ylabel("accuracy, %")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    return figure


def _panel(panel: Any, table: Sequence[Row], dense: float, cost: Callable[[Row], float]) -> None:
    look = looks(row.label for row in table)
    known = placed(table, cost)
    for label in look:
        line(panel, [(cost(row), row.accuracy, row.spread) for row in known if row.label == label], look[label], label)
    best = frontier(table, cost)
    steps = {"drawstyle": "steps-post", "color": GREY, "linewidth": 6, "alpha": 0.4, "zorder": 1}
    panel.plot([cost(row) for row in best], [row.accuracy for row in best], label="frontier", **steps)
    panel.axhline(dense, color="black", linestyle=":", linewidth=1, label="dense, to begin with")
    panel.grid(alpha=0.3)
    edge = lower_edge(table, dense)
    if edge is not None:
        panel.set_ylim(bottom=edge)
        _arrows(panel, [row for row in known if row.accuracy < edge], look, cost)


def _arrows(
    panel: Any, below: Sequence[Row], look: dict[str, tuple[str, str, str]], cost: Callable[[Row], float]
) -> None:
    """An arrow down for each row below the lower edge, with its accuracy beside it."""
    middle = sum(panel.get_xlim()) / 2
    for rank, row in enumerate(below):
        x, colour = cost(row), look[row.label][0]
        along = {"xycoords": panel.get_xaxis_transform(), "textcoords": "offset points", "fontsize": 8, "color": colour}
        arrow = {"arrowstyle": "<|-", "color": colour, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", (x, 0), (0, 14 + 11 * rank), arrowprops=arrow | {"arrowstyle": "-|>"}, **along)
        side = (
            {"ha": "left", "xytext": (5, 8 + 11 * rank)}
            if x <= middle
            else {"ha": "right", "xytext": (-5, 8 + 11 * rank)}
        )
        panel.annotate(f"{row.label} {row.accuracy:.2f}", (x, 0), **side, **along)
