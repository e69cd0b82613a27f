"""The plot of a comparison's page: it answers to the mouse, and tells the cost in the way that is chosen."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import cycle, islice
from textwrap import wrap
from typing import Any

from routekit.report.comparison import Row, frontier, lower_edge, placed, scales
from routekit.report.drawing import GREY, looks

# So many letters of a command are on a line beside a point: it has to fit on a phone.
NARROW = 40
# Where the name of what is below the lower edge stands: several may be at the same cost.
BESIDE = ("middle right", "middle left", "top center")
CLEAR = "rgba(0, 0, 0, 0)"


def frontier_plot(table: Sequence[Row], commands: Mapping[tuple[str, str | None], str], dense: float) -> str:
    """Accuracy against cost as HTML, with Plotly in it; `dense`, percent, is a dotted line.

    Colours and markers are those of `frontier_picture`, and so is what becomes of rows far below.
    """
    from plotly import graph_objects as go

    figure, methods, edge = go.Figure(), _by_method(table), lower_edge(table, dense)
    look = looks(methods)
    steps = {"width": 10, "color": "rgba(140, 150, 160, 0.35)", "shape": "hv"}
    figure.add_scatter(mode="lines", name="frontier", line=steps, hoverinfo="skip")
    for label, (colour, _, symbol) in look.items():
        found = methods[label]
        spreads: dict[str, Any] = {"type": "data", "array": [row.spread for row in found]}
        figure.add_scatter(
            error_y=spreads if any(row.spread for row in found) else None,
            mode="lines+markers",
            line={"color": colour, "width": 1},
            marker={"color": colour, "symbol": symbol, "size": 8},
            name=label,
            **_told(found, commands),
        )
    below = [] if edge is None else [row for row in table if row.accuracy < edge]
    if below:
        figure.add_scatter(
            mode="markers+text",
            marker={"symbol": "arrow-down", "size": 12, "color": [look[row.label][0] for row in below]},
            text=[f"{row.label} {row.accuracy:.2f}" for row in below],
            textposition=list(islice(cycle(BESIDE), len(below))),
            textfont={"size": 11},
            cliponaxis=False,
            showlegend=False,
            **_told(below, commands),
        )
    lines = [methods[label] for label in look]
    buttons = [_button(title, cost, table, lines, below, edge) for title, cost in scales(table).items()]
    first: dict[str, Any] = buttons[0]["args"][0]
    for trace, x, y in zip(figure.data, first["x"], first["y"], strict=True):
        trace.update(x=x, y=y)
    figure.add_hline(dense, line={"dash": "dot", "width": 1, "color": GREY})
    where = {"xref": "paper", "x": 0, "xanchor": "left", "y": dense, "yanchor": "bottom", "showarrow": False}
    figure.add_annotation(text=f"dense, to begin with: {dense:.2f}%", font_size=11, **where)
    top = max(dense, *(row.accuracy + row.spread for row in table))
    figure.update_layout(
        template="none", paper_bgcolor=CLEAR, plot_bgcolor=CLEAR, margin={"l": 55, "r": 10, "t": 10, "b": 50},
        xaxis_title=buttons[0]["label"], yaxis_title="accuracy, %",
        yaxis_range=None if edge is None else [edge, top + 0.06 * (top - edge)],
        legend={"orientation": "h", "y": -0.18}, hoverlabel={"align": "left"}, height=520,
    )  # fmt: skip
    if len(buttons) > 1:
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout(updatemenus=[menu], margin_t=60)
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="frontier", config={"responsive": True, "displayModeBar": False}
    )
    return f"<div class=plot>{html}</div>"


def _told(found: Sequence[Row], commands: Mapping[tuple[str, str | None], str]) -> dict[str, Any]:
    """What a point says under the mouse, and the command that the page shows for it."""
    own = [commands[row.method, row.budget] for row in found]
    said = [
        f"<b>{escape(row.name)}</b><br>{row.accuracy:.2f}%<br><i>{'<br>'.join(wrap(command, NARROW))}</i>"
        for row, command in zip(found, own, strict=True)
    ]
    return {"customdata": own, "hovertext": said, "hovertemplate": "%{hovertext}<br>cost: %{x:.2f}<extra></extra>"}


def _button(
    title: str,
    cost: Callable[[Row], float],
    table: Sequence[Row],
    methods: Sequence[Sequence[Row]],
    below: Sequence[Row],
    edge: float | None,
) -> dict[str, Any]:
    """Where all points are if the cost is told in this way: first the frontier, then the methods, then the arrows.

    Each point keeps its number, by which the page knows its command: one without a place is left out by null.
    """
    lines = [frontier(table, cost), *methods, *([below] if below else [])]
    drawn = {
        "x": [[cost(row) if placed([row], cost) else None for row in line] for line in lines],
        "y": [[row.accuracy if line is not below else edge for row in line] for line in lines],
    }
    return {"label": title, "method": "update", "args": [drawn, {"xaxis.title.text": title}]}


def _by_method(table: Sequence[Row]) -> dict[str, list[Row]]:
    """Each method's rows, the cheapest first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(table, key=lambda row: (row.label, row.share)):
        found.setdefault(row.label, []).append(row)
    return found
