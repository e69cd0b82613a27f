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
        runs: Annotated[list[Path], typer.Argument(help="Finished runs.")],
        out: Annotated[Path, typer.Option(help="The folder that pictures are written to.")] = Path("pictures"),
        kind: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
        json: o.Json = False,
    ) -> None:
        """Draw RUNS: accuracy against cost and, where networks have exits, where images are answered."""
        from routekit.reporting import draw

        files = [str(file) for file in draw(runs, out, kind)]
        result({"files": files}, "\n".join(files), as_json=json)
