"""A comparison as an HTML page: the findings, the table with the command behind each row, the terms, the plan."""

from collections.abc import Mapping, Sequence
from html import escape

from routekit.report.comparison import dense_accuracy, frontier, rows
from routekit.report.comparison_page import PAIRED, Compared, against, entries, how_measured, names, reading
from routekit.report.drawing import looks
from routekit.report.frontier_plot import frontier_plot
from routekit.report.page import html_line, html_table, prose, shell
from routekit.runtime.runtime import need

# The script shows this box once a row or a point is chosen.
CHOSEN = "<div id=chosen hidden><code id=command></code><button id=copy>copy</button></div>"


def comparison_html(compared: Compared, commands: Mapping[tuple[str, str | None], str]) -> str:
    """Make the page of a comparison. It loads nothing. The same arguments give the same bytes.

    Args:
        compared: What was compared.
        commands: The command that makes each row's first seed, by method and budget.

    Returns:
        The HTML document.

    Raises:
        InputError: Plotly is not installed.
    """
    need("plotly", "report")
    cells, table = compared.cells, rows(compared.cells)
    first, *more = compared.findings
    best, look, (head, texts), lines = frontier(table), looks(row.label for row in table), entries(table), []
    for row, line in zip(table, texts, strict=True):
        budget, method, *others = map(escape, line)
        method = f"<i style='background:{look[row.label][0]}'></i>{method}"
        command = f" data-command='{escape(commands[row.method, row.budget], quote=True)}'"
        lines.append(html_line([budget, method, *others], command + (" class=best" if row in best else "")))
    paired = ""
    if found := against(cells):
        differences = html_table(found[0], (html_line(map(escape, line)) for line in found[1]))
        paired = f"<h2>Differences, paired</h2>{differences}<p>{escape(PAIRED)}</p>\n"
    return shell(
        compared.title,
        f"<p><strong>{escape(first)}</strong></p>\n{_list(more)}"
        f"{frontier_plot(table, commands, dense_accuracy(cells))}\n"
        f"<p>{escape(reading(cells))} A double click on the picture shows all of it; a click on a point or a row, the "
        f"command that makes it.</p>\n{html_table(head, lines, ' class=rows')}\n{_list(names(cells))}{paired}"
        f"<h2>How it was measured</h2><p>{escape(how_measured(cells, compared.timings))}</p>\n"
        f"<details><summary>The plan</summary><pre>{escape(compared.yaml)}</pre></details>\n{CHOSEN}",
    )


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{prose(sentence)}' for sentence in sentences)}</ul>\n" if sentences else ""
