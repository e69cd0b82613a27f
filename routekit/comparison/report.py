"""The report of a comparison, drawn from its records."""

from pathlib import Path

from routekit.comparison.commands import command_of
from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.results import measured
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.files import existing
from routekit.report import pictures
from routekit.report.comparison import rows
from routekit.report.comparison_html import comparison_html
from routekit.report.comparison_page import comparison_page, how_measured, title_of, verdict


def report_comparison(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a comparison: `report.md`, the picture of its frontier, `index.html`; returns the files.

    It is made of what is recorded alone: the same cells give the same bytes. Raises InputError if no cell is done yet.
    """
    folder, plan = ComparisonFolder.open(path)
    cells = measured(folder, plan)
    if not cells:
        raise InputError(f"no cell of {path} is done yet: go on with `routekit compare --resume {path}`")
    table, how = rows(cells), how_measured(cells, read_timings(folder))
    out = existing(out)
    picture = out / f"frontier.{pictures.known(kind)}"
    pictures.save(pictures.frontier_picture(table), picture)
    page = out / "report.md"
    written = comparison_page(
        plan.model_dump(mode="json"), cells, table, picture=picture.name, planned=len(list(plan.cells())), how=how
    )
    page.write_text(written, encoding="utf-8")
    interactive = out / "index.html"
    first = {(cell.method, cell.budget): command_of(plan, cell) for cell in reversed(list(plan.cells()))}
    title = title_of(plan.model_dump(mode="json"), cells)
    html = comparison_html(table, first, title=title, said=verdict(cells), how=how)
    interactive.write_text(html, encoding="utf-8")
    return [page, picture, interactive]
