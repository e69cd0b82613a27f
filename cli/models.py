"""`routekit models`: the networks that can be converted."""

from typing import Annotated

import typer

from . import options as o
from .output import result


def models(
    pattern: Annotated[str, typer.Argument(help="List only names that contain this.")] = "", json: o.Json = False
) -> None:
    """List the networks for which routekit has adapters, by source."""
    from dataclasses import asdict

    from routekit.backbones.catalog import list_models
    from routekit.errors import InputError

    entries = [entry for entry in list_models() if pattern in f"{entry.source}:{entry.name}"]
    if not entries:
        raise InputError(f"no network contains {pattern!r}: `routekit models` lists all")
    lines = [f"{each.source}:{each.name}{'' if each.has_weights else '  (no pretrained weights)'}" for each in entries]
    result({"models": [asdict(entry) for entry in entries]}, "\n".join(lines), as_json=json)
