"""Self-contained HTML pages; that of a comparison: the frontier, the table, and the command behind each point."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from textwrap import wrap
from typing import Any

from routekit.report.comparison import Row, figures, frontier, verdict
from routekit.runtime.runtime import need

# So many letters of a command are on a line beside a point: it has to fit on a phone.
NARROW = 40


def comparison_html(
    table: Sequence[Row], commands: Mapping[tuple[str, str | None], str], *, title: str, how: str
) -> str:
    """The page of `table`; `commands` are those of each row's first seed, `how` says how it was measured.

    It loads nothing from elsewhere. The same arguments give the same bytes.
    """
    need("plotly", "report")
    best = frontier(table)
    body = "".join(_line(row, commands[row.method, row.budget], best=row in best) for row in table)
    head = "".join(
        f"<th>{name}" for name in ("budget", "method", "accuracy, %", "MACs, %", "seeds", "parameters", "bytes")
    )
    return shell(
        title,
        f"<p>{escape(verdict(table))}</p>\n{_plot(table, commands)}\n"
        "<p>Click a point or a row for the command that makes it.</p><code id=command>&nbsp;</code>\n"
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
        f"<p>{escape(how)}</p>",
    )


def shell(title: str, body: str) -> str:
    """A whole HTML document, with the style and the script of all pages in it."""
    parts = resources.files("routekit.report")
    css, script = ((parts / name).read_text() for name in ("page.css", "page.js"))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n"
        f"<script>{script}</script></body></html>\n"
    )


def _line(row: Row, command: str, *, best: bool) -> str:
    cells = "".join(f"<td>{escape(entry)}" for entry in figures(row))
    return f"<tr data-command='{escape(command, quote=True)}'{' class=best' if best else ''}>{cells}</tr>"


def _plot(table: Sequence[Row], commands: Mapping[tuple[str, str | None], str]) -> str:
    from plotly import graph_objects as go

    figure = go.Figure()
    best = frontier(table)
    figure.add_scatter(
        x=[row.share for row in best], y=[row.accuracy for row in best], mode="lines", name="frontier",
        line={"width": 10, "color": "rgba(140, 150, 160, 0.35)"}, hoverinfo="skip",
    )  # fmt: skip
    for method in sorted({row.method for row in table}):
        found = sorted((row for row in table if row.method == method), key=lambda row: row.share)
        spreads: dict[str, Any] = {"type": "data", "array": [row.spread for row in found]}
        figure.add_scatter(
            x=[row.share for row in found],
            y=[row.accuracy for row in found],
            error_y=spreads if any(row.spread for row in found) else None,
            customdata=[commands[row.method, row.budget] for row in found],
            text=["<br>".join(wrap(commands[row.method, row.budget], NARROW)) for row in found],
            mode="lines+markers",
            name=method,
            hovertemplate=f"<b>{escape(method)}</b><br>%{{y:.2f}}% at %{{x:.2f}}% of the MACs"
            "<br><i>%{text}</i><extra></extra>",
        )
    clear = "rgba(0, 0, 0, 0)"
    figure.update_layout(
        template="none", paper_bgcolor=clear, plot_bgcolor=clear, margin={"l": 55, "r": 10, "t": 10, "b": 50},
        xaxis_title="mean cost, % of the dense network's MACs", yaxis_title="accuracy, %",
        legend={"orientation": "h", "y": -0.2}, hoverlabel={"align": "left"},
    )  # fmt: skip
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="frontier", config={"responsive": True, "displayModeBar": False}
    )
    return f"<div class=plot>{html}</div>"
