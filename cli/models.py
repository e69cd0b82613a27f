"""`routekit models`: the networks that can be converted."""

from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def models(
        pattern: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
        json: o.Json = False,
    ) -> None:
        """List the networks that routekit's adapters claim, by source."""
        from dataclasses import asdict

        from routekit.backbones.catalog import list_models

        entries = [entry for entry in list_models() if pattern in f"{entry.source}:{entry.name}"]
        lines = [
            f"{entry.source}:{entry.name}" + ("" if entry.has_weights else "  (no pretrained weights)")
            for entry in entries
        ]
        result({"models": [asdict(entry) for entry in entries]}, "\n".join(lines), as_json=json)
