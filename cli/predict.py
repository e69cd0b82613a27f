"""`routekit predict`: what a network says about image files."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def predict(
        model: Annotated[Path, typer.Argument(help="A run, a compact checkpoint, or an exported file or folder.")],
        images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
        top: Annotated[int, typer.Option(min=1, help="How many classes to print for each image.")] = 1,
        device: o.Device = None,
        json: o.Json = False,
    ) -> None:
        """Print the likeliest classes of IMAGES, and what each of them cost."""
        from routekit.pipeline.predict import predict as answers

        report = answers(model, images, top=top, machine=o.machine(device))
        lines = []
        for image in report["images"]:
            classes = ", ".join(f"{each['class']} {100 * each['probability']:.1f}%" for each in image["top"])
            share = 100 * image["flops"] / report["dense_flops"]
            taken = [*_taken(image["route"], report["decided"]), f"{share:.0f}% of the MACs"]
            lines.append(f"{image['image']}: {classes}  ({', '.join(taken)})")
        result(report, "\n".join(lines), as_json=json)


def _taken(route: list[str], decided: list[str]) -> list[str]:
    """How much of what is decided a route takes: of the units, and of the exits, where images go on or are done."""
    # At a fork either way leads on: what is taken there is no more than what is not.
    exits = {name for name in decided if name.startswith("past ")}
    units, taken = {name for name in decided if not name.startswith(("past ", "first sink at "))}, set(route)
    said = {
        f"{len(taken & units)} of {len(units)} units": units,
        f"on at {len(taken & exits)} of {len(exits)} exits": exits,
    }
    return [text for text, names in said.items() if names]
