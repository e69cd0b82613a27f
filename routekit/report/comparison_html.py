"""A comparison as an HTML page: what it says, the table with the command behind each row, the terms, the plan."""

from collections.abc import Mapping, Sequence
from html import escape

from routekit.report.comparison import dense_accuracy, frontier, rows
from routekit.report.comparison_page import PAIRED, Compared, against, columns, figures, how_measured, names, reading
from routekit.report.drawing import looks
from routekit.report.frontier_plot import frontier_plot
from routekit.report.page import prose, shell
from routekit.runtime.runtime import need

# The box is there once something is chosen.
CHOSEN = "<div id=chosen hidden><code id=command></code><button id=copy>copy</button></div>"


def comparison_html(compared: Compared, commands: Mapping[tuple[str, str | None], str]) -> str:
    """The page; `commands` are those of each row's first seed.

    It loads nothing from elsewhere. The same arguments give the same bytes.
    """
    need("plotly", "report")
    cells, table = compared.cells, rows(compared.cells)
    first, *more = compared.findings
    best, colours = frontier(table), {label: look[0] for label, look in looks(row.label for row in table).items()}
    lines = [
        _line(figures(row, table), commands[row.method, row.budget], colours[row.label], best=row in best)
        for row in table
    ]
    paired = against(cells)
    return shell(
        compared.title,
        f"<p><strong>{escape(first)}</strong></p>\n{_list(more)}"
        f"{frontier_plot(table, commands, dense_accuracy(cells))}\n"
        f"<p>{escape(reading(cells))} A double click on the picture shows all of it; a click on a point or a row, the "
        f"command that makes it.</p>\n{_table(columns(table), lines, ' class=rows')}\n{_list(names(cells))}"
        + (f"<h2>Differences, paired</h2>{_paired(*paired)}<p>{escape(PAIRED)}</p>\n" if paired else "")
        + f"<h2>How it was measured</h2><p>{escape(how_measured(cells, compared.timings))}</p>\n"
        f"<details><summary>The plan</summary><pre>{escape(compared.yaml)}</pre></details>\n{CHOSEN}",
    )


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{prose(sentence)}" for sentence in sentences) + "</ul>\n" if sentences else ""


def _table(head: Sequence[str], lines: Sequence[str], kind: str = "") -> str:
    titles = "".join(f"<th>{escape(name)}" for name in head)
    return f"<div class=wide><table{kind}><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


def _line(entries: Sequence[str], command: str, colour: str, *, best: bool) -> str:
    budget, method, *others = map(escape, entries)
    cells = "".join(f"<td>{entry}" for entry in [budget, f"<i style='background:{colour}'></i>{method}", *others])
    return f"<tr data-command='{escape(command, quote=True)}'{' class=best' if best else ''}>{cells}</tr>"


def _paired(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return _table(head, ["<tr>" + "".join(f"<td>{escape(entry)}" for entry in line) + "</tr>" for line in lines])
