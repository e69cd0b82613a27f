"""A cascade on disk: one JSON file, and beside it a folder for each of its networks, as `checkpoint` writes them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from routekit.backbones.unit import Backbone
from routekit.errors import InputError
from routekit.export.checkpoint import CASCADE, SPEC, TENSORS, VERSION, load_network, network_folder, read_spec
from routekit.files import write_text
from routekit.network.cascade import Cascade
from routekit.network.network import RoutedNetwork

FORMAT = "routekit cascade"


def save_cascade(folder: Path, cascade: Cascade, paths: Sequence[Path], *, about: dict[str, Any]) -> None:
    """Write `cascade` to `folder`; `paths` are the runs or checkpoints that its networks were loaded from, in order."""
    for number, path in enumerate(paths):
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for name in (SPEC, TENSORS):
            shutil.copyfile(network_folder(path) / name, place / name)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "networks": [str(number) for number in range(len(paths))],
        "rule": cascade.rule,
        "average": cascade.average,
        "threshold": float(cascade.threshold),
        "learned": [[*known.weight.tolist(), known.bias.item()] for known in cascade.learned],
        "about": about,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_text(folder / CASCADE, text)


def cascade_folder(path: Path) -> Path | None:
    """The folder that holds the cascade of `path`: itself, or `network/` of a run; None if neither does."""
    return next((folder for folder in (path, path / "network") if (folder / CASCADE).exists()), None)


def read_cascade(folder: Path) -> dict[str, Any]:
    """Read and check `cascade.json`. Raises InputError: damaged, foreign or of another version."""
    path = folder / CASCADE
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise InputError(f"{path} is no routekit cascade")
        if document["version"] != VERSION:
            raise InputError(f"{path} is of version {document['version']}, this routekit reads version {VERSION}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    assert isinstance(document, dict)
    return document


def read_about(path: Path) -> dict[str, Any]:
    """What a run, a checkpoint or a cascade says about itself: classes, the record of its run. Raises InputError."""
    folder = cascade_folder(path)
    about = (read_spec(network_folder(path)) if folder is None else read_cascade(folder))["about"]
    assert isinstance(about, dict)
    return about


def load(path: str | Path, model: nn.Module | Backbone | None = None) -> RoutedNetwork | Cascade:
    """Load a run, a compact checkpoint or a cascade; in eval mode, on the CPU.

    `model` is an instance of your own architecture, for a network that was converted from one ("custom"), or what
    `mark_units` makes of it; it is loaded into.
    Raises InputError if the files are missing, damaged, or do not fit together.
    """
    folder = cascade_folder(Path(path))
    if folder is None:
        return load_network(path, model)
    if model is not None:
        raise InputError(f"{folder} holds a cascade: load its networks one by one, each with a model of its own")
    document = read_cascade(folder)
    try:
        stages = [load_network(folder / name) for name in document["networks"]]
        cascade = Cascade(
            stages, rule=document["rule"], average=document["average"], threshold=float(document["threshold"])
        )
        for known, values in zip(cascade.learned, document.get("learned", []), strict=True):
            *weight, bias = values
            known.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
        return cascade
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is damaged: {error}") from error
