"""The report of a comparison, drawn from its records."""

from pathlib import Path

from routekit.comparison.commands import command_of
from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.results import measured
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.files import existing, write_text
from routekit.report import drawing
from routekit.report.comparison import dense_accuracy, rows
from routekit.report.comparison_html import comparison_html
from routekit.report.comparison_page import Compared, comparison_page
from routekit.report.frontier_picture import frontier_picture


def report_comparison(path: Path, out: Path, kind: str) -> list[Path]:
    """Write the report of a comparison: `report.md`, the picture of its frontier, `index.html`; returns the files.

    It is made of what is recorded alone: the same cells give the same bytes. Raises InputError if no cell is done yet.
    """
    folder, plan = ComparisonFolder.open(path)
    cells = measured(folder, plan)
    if not cells:
        raise InputError(f"no cell of {path} is done yet: go on with `routekit compare --resume {path}`")
    picture, out = f"frontier.{drawing.known(kind)}", existing(out)
    files = [out / "report.md", out / picture, out / "index.html"]
    compared = Compared(plan.model_dump(mode="json"), cells, len(list(plan.cells())), read_timings(folder))
    first = {(cell.method, cell.budget): command_of(plan, cell) for cell in reversed(list(plan.cells()))}
    write_text(files[0], comparison_page(compared, picture))
    drawing.save(frontier_picture(rows(cells), dense_accuracy(cells)), files[1])
    write_text(files[2], comparison_html(compared, first))
    return files
