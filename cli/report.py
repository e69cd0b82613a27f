"""`routekit report`: what runs and comparisons found, in words and pictures."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def report(
    runs: Annotated[
        list[str], typer.Argument(help="A finished run or hf://user/name, several of them, or one comparison.")
    ],
    out: Annotated[
        Path | None,
        o.option("The folder to write to. Default: report/ in the run, the comparison's folder, or pictures/."),
    ] = None,
    kind: Annotated[str, o.option("svg or png.", None, "--format")] = "svg",
    force: o.Force = False,
    open_: Annotated[bool, o.option("Show the page in the browser.", None, "--open")] = False,
    json: o.Json = False,
) -> None:
    """Write the report of a run or of a comparison, in Markdown and as an interactive page.

    Several RUNS are drawn together: accuracy against cost and, if they have exits, where images are answered.
    """
    from routekit.comparison.plan import ComparisonFolder
    from routekit.comparison.report import report_comparison
    from routekit.errors import InputError
    from routekit.pipeline.report import draw, report_run

    paths = [*map(o.path, runs)]
    compared = next((path for path in paths if ComparisonFolder.holds(path)), None)
    if compared is not None and len(paths) > 1:
        raise InputError(f"{compared} is a comparison: give it alone")
    if compared is not None:
        written = report_comparison(compared, out or compared, kind, force=force)
    elif len(paths) == 1:
        own = paths[0] if paths[0] == Path(runs[0]) else Path()  # what was fetched stays as it is
        written = report_run(paths[0], out or own / "report", kind, force=force)
    else:
        written = draw(paths, out or Path("pictures"), kind, force=force)
    files = [str(file) for file in written]
    if open_ and written[-1].suffix == ".html":
        typer.launch(str(written[-1].resolve()))
    result({"files": files}, "\n".join(files), as_json=json)
