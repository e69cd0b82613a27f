"""`routekit auto`: what is reachable for a network, in a few minutes."""

import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from . import settings
from .output import result

EPILOG = """Examples:

routekit auto torchvision:resnet18 --weights runs/dense --data images

routekit auto timm:resnet50 --data images --runtime openvino --threads 4
"""


def auto(
    model: Annotated[
        str, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, or your own: my_model.py:make_net.")
    ],
    weights: o.Weights = None,
    data: o.Data = None,
    data_root: o.DataRoot = None,
    download: o.Download = False,
    val: o.Val = None,
    val_from_test: o.ValFromTest = None,
    smaller: Annotated[
        list[Path] | None, o.option("A finished run of a smaller network for the same classes, which competes.", o.WHAT)
    ] = None,
    runtime: o.Runtime = None,
    batch: o.Batch = None,
    threads: o.Threads = None,
    images: Annotated[int, o.option("How many validation and test images are used at most.", min=20)] = 1000,
    set_: o.Set = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Say what is reachable for a trained MODEL: a table, and a command for each row.

    Nothing is trained and nothing is kept. What needs no training is measured: 8 bits, lower resolutions, networks at
    hand, and sequences of these. What needs training is timed.
    """
    from routekit.pipeline.auto import auto as look
    from routekit.recipe import load_recipe

    base = settings.default_recipe(data)
    chosen = {
        **settings.subject(model, weights, data, data_root, download, val, val_from_test),
        **settings.aim(None, None, 5.0, None, runtime, None, batch, threads),
        **settings.given({"smaller": [str(path) for path in smaller or []] or None}),
        "ladder": ["50%", "25%"],  # untrained, networks are of no use at lower resolutions
        **settings.made(load_recipe(base), "ladder", None, None),
        "training.epochs": 0,
        **settings.overrides(set_),
    }
    found = look(load_recipe(base, chosen), o.machine(device), images=images)
    for row in found["rows"]:
        row["command"] = None if row["settings"] is None else _command(row["settings"])
    result(found, _text(found), as_json=json)


def _command(chosen: dict[str, Any]) -> str:
    """The command that makes a row: that of the user, with other settings."""
    words = [word for word in o.words.get() if word != "--json"]
    for place, word in reversed([*enumerate(words)]):
        if word.partition("=")[0] == "--images":
            del words[place : place + (1 if "=" in word else 2)]
    own = ["--epochs", f"{chosen['training.epochs']:g}", "--max-drop", f"{chosen['aim.max_drop']:g}"]
    return shlex.join(["routekit", "convert", *words[1:], *own])


def _text(found: dict[str, Any]) -> str:
    """The table."""
    from routekit.macs import describe

    data, place = found["data"], found["time"]
    lines = [
        f"{found['model']} ({describe(found['macs'])}) on {data['name']}: {data['classes']} classes, {data['train']:,} "
        "training images",
        f"measured on {data['test']:,} test images, chosen on {data['val']:,} validation images; {place['runtime']}, "
        f"batch {place['batch']}, {place['threads']} threads, {found['environment']['device']}",
        "",
        f"{'':34}{'accuracy':>9}{'ms':>9}{'times':>7}{'MB':>7}",
    ]
    for row in found["rows"]:
        lines += _row(row) if "ms" in row else _prospect(row)
        if row["command"]:
            lines.append(f"    {row['command']}")
    error = 100 * math.sqrt(found["rows"][0]["test_accuracy"] * (1 - found["rows"][0]["test_accuracy"]) / data["test"])
    return "\n".join(
        [
            *lines,
            "",
            f"Of an accuracy, ± {error:.1f} points are chance: which test images these are. What is lost was measured",
            f"on validation images. Times: how many times as fast as it is now. This took {found['seconds']:.0f} s.",
        ]
    )


def _row(row: dict[str, Any]) -> list[str]:
    what = "as it is" if row["settings"] is None else f"untrained, at most {row['max_drop']:g} points lost"
    measured = f"{100 * row['test_accuracy']:>8.2f}%{row['ms']:>9.3f}{row['speedup']:>7.2f}{row['bytes'] / 1e6:>7.1f}"
    return [f"{what:34}{measured}", *([] if row["settings"] is None else [f"    {' > '.join(row['passes'])}"])]


def _prospect(row: dict[str, Any]) -> list[str]:
    epochs = "one epoch" if row["epochs"] == 1 else f"{row['epochs']:g} epochs"
    length = f"{epochs}, about {math.ceil(row['minutes'])} min"
    return [
        f"{length:34}{'?':>9}{row['least_ms']:>9.3f}  or more",
        f"    the cheapest form is {row['least']}",
    ]
