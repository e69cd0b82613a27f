"""`routekit push`: a run on the Hugging Face Hub, where `routekit.load("hf://user/name")` finds it."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def push(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    name: Annotated[str, typer.Argument(help="The repository: user/name. It is made if it is not there.")],
    private: Annotated[bool, o.option("Only you can see it.", None, "--private")] = False,
    revision: Annotated[str | None, o.option("The branch to write to. Default: main.")] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Put RUN's network on the Hugging Face Hub: compact, with its record and its model card.

    You need an account there: log in with `hf auth login`, or set HF_TOKEN. Other commands take hf://NAME as a run.
    """
    from routekit.hub import SCHEME
    from routekit.publish import push as put

    o.machine(device)  # raises for one that is unknown
    name = name.removeprefix(SCHEME)
    address = put(run, name, private=private, revision=revision, device=device)
    word = SCHEME + name + (f"@{revision}" if revision else "")
    text = f"{run}: {address}\n  use it as {word}"
    result({"run": str(run), "address": address, "use": word}, text, as_json=json)
