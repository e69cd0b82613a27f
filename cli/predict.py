"""`routekit predict`: the answers of a network to image files."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def predict(
    model: Annotated[Path, o.saved("A run, a checkpoint (compact or hf://user/name), or an exported file or folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, o.option("How many classes to print for each image.", min=1)] = 1,
    trust: Annotated[
        bool, o.option("Open a torch program (.pt2), which may run any code that its maker put there.", None, "--trust")
    ] = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Print the likeliest classes of IMAGES, and the cost of each image."""
    from routekit.pipeline.predict import predict as answers

    report = answers(model, images, top=top, machine=o.machine(device), trust=trust)
    lines = []
    for image in report["images"]:
        classes = ", ".join(f"{each['class']} {100 * each['probability']:.1f}%" for each in image["top"])
        share = 100 * image["flops"] / report["dense_flops"]
        taken = [*_taken(image["route"], report["decided"]), f"{share:.0f}% of the MACs"]
        lines.append(f"{image['image']}: {classes}  ({', '.join(taken)})")
    result(report, "\n".join(lines), as_json=json)


def _taken(route: list[str], decided: list[str]) -> list[str]:
    """How many units a route runs, and how many exits it passes, in words."""
    exits = {name for name in decided if name.startswith("past ")}
    # At a fork, both sinks lead on: the first one is no more than the other.
    units = {name for name in decided if not name.startswith(("past ", "first sink at "))}
    words = []
    if units:
        words.append(f"{len(units.intersection(route))} of {len(units)} units")
    if exits:
        words.append(f"on at {len(exits.intersection(route))} of {len(exits)} exits")
    return words
