"""A comparison as an HTML page: the frontier, the table, and the command behind each point."""

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any

from routekit.report.comparison import Row, frontier, placed, scales
from routekit.report.comparison_page import columns, figures
from routekit.report.page import shell
from routekit.runtime.runtime import need

# So many letters of a command are on a line beside a point: it has to fit on a phone.
NARROW = 40


def comparison_html(
    table: Sequence[Row], commands: Mapping[tuple[str, str | None], str], *, title: str, said: str, how: str
) -> str:
    """The page of `table`; `commands` are those of each row's first seed.

    `said` is what the table says in words, `how` how it was measured. The page loads nothing from
    elsewhere. The same arguments give the same bytes.
    """
    need("plotly", "report")
    best = frontier(table)
    body = "".join(_line(figures(row, table), commands[row.method, row.budget], best=row in best) for row in table)
    head = "".join(f"<th>{escape(name)}" for name in columns(table))
    return shell(
        title,
        f"<p>{escape(said)}</p>\n{_plot(table, commands)}\n"
        "<p>Click a point or a row for the command that makes it.</p><code id=command>&nbsp;</code>\n"
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
        f"<p>{escape(how)}</p>",
    )


def _line(entries: Sequence[str], command: str, *, best: bool) -> str:
    cells = "".join(f"<td>{escape(entry)}" for entry in entries)
    return f"<tr data-command='{escape(command, quote=True)}'{' class=best' if best else ''}>{cells}</tr>"


def _plot(table: Sequence[Row], commands: Mapping[tuple[str, str | None], str]) -> str:
    from plotly import graph_objects as go

    figure = go.Figure()
    figure.add_scatter(
        mode="lines", name="frontier", line={"width": 10, "color": "rgba(140, 150, 160, 0.35)"}, hoverinfo="skip"
    )
    methods = _by_method(table)
    for method, found in methods.items():
        spreads: dict[str, Any] = {"type": "data", "array": [row.spread for row in found]}
        figure.add_scatter(
            error_y=spreads if any(row.spread for row in found) else None,
            customdata=[commands[row.method, row.budget] for row in found],
            text=["<br>".join(wrap(commands[row.method, row.budget], NARROW)) for row in found],
            mode="lines+markers",
            name=method,
            hovertemplate=f"<b>{escape(method)}</b><br>%{{y:.2f}}% at %{{x:.2f}}<br><i>%{{text}}</i><extra></extra>",
        )
    buttons: list[dict[str, Any]] = []
    for title, cost in scales(table).items():
        lines = [frontier(table, cost), *methods.values()]
        # Each point keeps its number, by which the page knows its command: one without a place is left out by null.
        drawn = {
            "x": [[cost(row) if placed([row], cost) else None for row in line] for line in lines],
            "y": [[row.accuracy for row in line] for line in lines],
        }
        buttons.append({"label": title, "method": "update", "args": [drawn, {"xaxis.title.text": title}]})
    first: dict[str, Any] = buttons[0]["args"][0]
    for trace, x, y in zip(figure.data, first["x"], first["y"], strict=True):
        trace.update(x=x, y=y)
    clear = "rgba(0, 0, 0, 0)"
    figure.update_layout(
        template="none", paper_bgcolor=clear, plot_bgcolor=clear, margin={"l": 55, "r": 10, "t": 10, "b": 50},
        xaxis_title=buttons[0]["label"], yaxis_title="accuracy, %",
        legend={"orientation": "h", "y": -0.2}, hoverlabel={"align": "left"},
    )  # fmt: skip
    if len(buttons) > 1:
        menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
        figure.update_layout(updatemenus=[menu], margin_t=60)
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="frontier", config={"responsive": True, "displayModeBar": False}
    )
    return f"<div class=plot>{html}</div>"


def _by_method(table: Sequence[Row]) -> dict[str, list[Row]]:
    """Each method's rows, the cheapest first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(table, key=lambda row: (row.method, row.share)):
        found.setdefault(row.method, []).append(row)
    return found
