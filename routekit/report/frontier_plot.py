"""The plot of a comparison's page: it answers to the mouse, and has a button for each scale of costs."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle, islice
from textwrap import wrap
from typing import Any

from routekit.report.comparison import Row, frontier, lower_edge, scales
from routekit.report.drawing import GREY, looks

# The letters of a command in a line beside a point: it has to fit on a phone.
NARROW = 40
# Where the names of rows below the lower edge stand: several may have the same cost.
BESIDE = ("middle right", "middle left", "top center")
CLEAR = "rgba(0, 0, 0, 0)"


def frontier_plot(table: Sequence[Row], commands: Mapping[tuple[str, str | None], str], dense: float) -> str:
    """Draw accuracy against cost with Plotly, with the colours, markers and arrows of `frontier_picture`.

    Args:
        table: The rows.
        commands: The command that makes each row, by method and budget.
        dense: The accuracy of the network that all methods began with, percent: a dotted line.

    Returns:
        HTML that holds the plot and Plotly itself.
    """
    from plotly import graph_objects as go

    figure, edge, look = go.Figure(), lower_edge(table, dense), looks(row.label for row in table)
    methods = {label: sorted((row for row in table if row.label == label), key=lambda row: row.share) for label in look}
    steps = {"width": 10, "color": "rgba(140, 150, 160, 0.35)", "shape": "hv"}
    figure.add_scatter(mode="lines", name="frontier", line=steps, hoverinfo="skip")
    for label, (colour, _, symbol) in look.items():
        spreads = [row.spread for row in methods[label]]
        bars = {"type": "data", "array": spreads} if any(spreads) else None
        drawn = {"line": {"color": colour, "width": 1}, "marker": {"color": colour, "symbol": symbol, "size": 8}}
        labels = _labels(methods[label], commands)
        figure.add_scatter(error_y=bars, mode="lines+markers", name=label, **drawn, **labels)
    below = [row for row in table if edge is not None and row.accuracy < edge]
    if below:
        arrows = {"symbol": "arrow-down", "size": 12, "color": [look[row.label][0] for row in below]}
        names = [f"{row.label} {row.accuracy:.2f}" for row in below]
        beside = {"textposition": list(islice(cycle(BESIDE), len(below))), "textfont": {"size": 11}}
        shown = {"cliponaxis": False, "showlegend": False, **_labels(below, commands)}
        figure.add_scatter(mode="markers+text", marker=arrows, text=names, **beside, **shown)
    buttons = []
    for scale in scales(table):
        # A point keeps its number, by which the page finds its command: one without a cost is null.
        lines = [frontier(table, scale), *methods.values(), *([below] if below else [])]
        points = {
            "x": [[row.costs.get(scale) for row in line] for line in lines],
            "y": [[edge if line is below else row.accuracy for row in line] for line in lines],
        }
        buttons.append({"label": scale, "method": "update", "args": [points, {"xaxis.title.text": scale}]})
    first: Any = buttons[0]["args"][0]
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
    config = {"responsive": True, "displayModeBar": False}
    html = figure.to_html(full_html=False, include_plotlyjs=True, div_id="frontier", config=config)
    return f"<div class=plot>{html}</div>"


def _labels(found: Sequence[Row], commands: Mapping[tuple[str, str | None], str]) -> dict[str, Any]:
    """The labels that points show under the mouse, and the commands that the page shows for them."""
    own = [commands[row.method, row.budget] for row in found]
    texts = [
        f"<b>{escape(row.name)}</b><br>{row.accuracy:.2f}%<br><i>{'<br>'.join(wrap(command, NARROW))}</i>"
        for row, command in zip(found, own, strict=True)
    ]
    return {"customdata": own, "hovertext": texts, "hovertemplate": "%{hovertext}<br>cost: %{x:.2f}<extra></extra>"}
