"""The report of a comparison, drawn from its records."""

from pathlib import Path

from routekit.comparison.commands import command_of
from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.results import measured
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.files import check_file, existing, write_text
from routekit.report import drawing
from routekit.report.comparison import dense_accuracy, rows
from routekit.report.comparison_html import comparison_html
from routekit.report.comparison_page import Compared, comparison_page
from routekit.report.frontier_picture import frontier_picture


def report_comparison(path: Path, out: Path, kind: str, *, force: bool = False) -> list[Path]:
    """Write the report of a comparison from its records alone: the same records give the same bytes.

    Args:
        path: The comparison.
        out: The folder to write to, which is made where it is missing.
        kind: The format of the picture, "svg" or "png".
        force: Whether it may replace files that routekit did not write.

    Returns:
        The files: `report.md`, the picture of the frontier, `index.html`.

    Raises:
        InputError: No cell is done yet, there is no comparison, the format is unknown, or a file is not ours.
    """
    folder, plan = ComparisonFolder.open(path)
    cells, planned = measured(folder, plan), list(plan.cells())
    if not cells:
        raise InputError(f"no cell of {path} is done yet: go on with `routekit compare --resume {path}`")
    picture, out = f"frontier.{drawing.known(kind)}", existing(out)
    files = [out / "report.md", out / picture, out / "index.html"]
    for file in files:
        check_file(file, force=force)
    compared = Compared(plan.model_dump(mode="json", exclude={"began_in"}), cells, len(planned), read_timings(folder))
    first = {(cell.method, cell.budget): command_of(plan, cell) for cell in reversed(planned)}
    write_text(files[0], comparison_page(compared, picture))
    drawing.save(frontier_picture(rows(cells), dense_accuracy(cells)), files[1])
    write_text(files[2], comparison_html(compared, first))
    return files
