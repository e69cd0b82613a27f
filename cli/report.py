"""`routekit report`: pictures of recorded runs."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        runs: Annotated[list[Path], typer.Argument(help="Finished runs, or one comparison.")],
        out: Annotated[
            Path | None, typer.Option(help="The folder to write to; by default pictures/, or the comparison's own.")
        ] = None,
        kind: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
        open_: Annotated[bool, typer.Option("--open", help="Show the comparison's page in the browser.")] = False,
        json: o.Json = False,
    ) -> None:
        """Draw RUNS: accuracy against cost and, where networks have exits, where images are answered.

        Of a comparison, write the report: what it says, the frontier, the table; in Markdown, and as a page to explore.
        """
        from routekit.comparison.plan import ComparisonFolder
        from routekit.errors import InputError
        from routekit.reporting import draw, report_comparison

        compared = [path for path in runs if ComparisonFolder.holds(path)]
        if compared and len(runs) > 1:
            raise InputError(f"{compared[0]} is a comparison: give it alone")
        if compared:
            written = report_comparison(compared[0], out or compared[0], kind)
        else:
            written = draw(runs, out or Path("pictures"), kind)
        files = [str(file) for file in written]
        if open_ and compared:
            typer.launch(str(written[-1].resolve()))
        result({"files": files}, "\n".join(files), as_json=json)
