"""`routekit report`: what runs and comparisons found, in words and pictures."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        runs: Annotated[list[Path], typer.Argument(help="A finished run, several of them, or one comparison.")],
        out: Annotated[
            Path | None,
            typer.Option(
                help="The folder to write to; by default report/ in the run, the comparison's own, pictures/."
            ),
        ] = None,
        kind: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
        open_: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
        json: o.Json = False,
    ) -> None:
        """Write the report of a run or of a comparison, in Markdown and as a page to explore.

        Several RUNS are drawn together: accuracy against cost and, where there are exits, where images are answered.
        """
        from routekit.comparison.plan import ComparisonFolder
        from routekit.comparison.report import report_comparison
        from routekit.errors import InputError
        from routekit.pipeline.report import draw, report_run

        compared = [path for path in runs if ComparisonFolder.holds(path)]
        if compared and len(runs) > 1:
            raise InputError(f"{compared[0]} is a comparison: give it alone")
        if compared:
            written = report_comparison(compared[0], out or compared[0], kind)
        elif len(runs) == 1:
            written = report_run(runs[0], out or runs[0] / "report", kind)
        else:
            written = draw(runs, out or Path("pictures"), kind)
        files = [str(file) for file in written]
        if open_ and written[-1].suffix == ".html":
            typer.launch(str(written[-1].resolve()))
        result({"files": files}, "\n".join(files), as_json=json)
