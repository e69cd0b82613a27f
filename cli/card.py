"""`routekit card`: the model card of a run, made of its record."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def card(
    run: Annotated[str, typer.Argument(help="A finished run, or hf://user/name.")],
    out: Annotated[Path | None, o.option("The file to write. Default: the card is printed.")] = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Write the model card of RUN: what was measured, with intervals and tests, and what was not.

    It is made of the run's record alone. `routekit push` puts it on the Hugging Face Hub, with the network.
    """
    from routekit.files import check_file, write_text
    from routekit.hub import SCHEME
    from routekit.report.card import card as written
    from routekit.report.record import read_record

    if out is not None:
        check_file(out, force=force)
    text = written(read_record(o.path(run)), run if run.startswith(SCHEME) else None)
    if out is not None:
        write_text(out, text)
    file = None if out is None else str(out)
    result({"run": run, "file": file, "card": text}, file or text.rstrip("\n"), as_json=json)
