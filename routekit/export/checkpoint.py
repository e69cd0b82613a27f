"""A routed network on disk: a JSON spec and safetensors. Versioned, complete, no pickle."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load, save
from torch import nn

from routekit.backbones.adapters import adapt
from routekit.backbones.load import build
from routekit.backbones.resize import resize
from routekit.backbones.unit import Backbone, Fold, ModelSpec
from routekit.errors import InputError, first_line
from routekit.execution.fold import fold_structure
from routekit.export.drop import reduce
from routekit.files import write_atomically, write_text
from routekit.network.branches import BranchConfig
from routekit.network.convert import convert
from routekit.network.dial import DialRange
from routekit.network.exits import END, ExitConfig
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FixedRoute, RouterConfig

FORMAT, VERSION = "routekit", 2
SPEC, TENSORS = "network.json", "network.safetensors"
# What a folder of several such networks has in the place of a specification: `cascade.py`.
CASCADE = "cascade.json"


def save_network(
    folder: Path, network: RoutedNetwork, *, about: dict[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write `network` to `folder`.

    about: what a user of the file needs beside the network: classes, costs, accuracy
    dtype: in which parameters are stored; they are computed with in float32. What decides, and statistics, stay as they
           are: a threshold near 1, rounded, would let every image pass
    """
    config = network.routers.config
    spec = {
        "format": FORMAT,
        "version": VERSION,
        "model": asdict(network.view.spec),
        # Whether layers have fewer channels than the model's, by their tensors' shapes.
        "pruned": network.view.pruned,
        "step": network.view.step,
        "routers": None if config is None else asdict(config),
        "exits": [asdict(each.config) | {"at": END if each.ends else each.after} for each in network.exits],
        "skips": network.skips,
        "branches": None if network.branches is None else asdict(network.branches),
        # Whether narrow branches and exits have weights of their own, and not the backbone's.
        "alone": network.stands_alone,
        "dial": None if network.dial is None else asdict(network.dial.range),
        # Units that are left out because no image runs them, and those without a router because every image does.
        "dropped": [unit.name for unit in network.view.units if unit.dropped],
        "settled": [unit.name for unit in network.view.units if not (unit.decides or unit.dropped)],
        "folded": [asdict(fold) for fold in network.view.folded],
        "about": about,
    }
    deciding = {id(parameter) for parameter in network.routing_parameters()}
    coarse = {name for name, parameter in network.named_parameters() if id(parameter) not in deciding}
    tensors = {}
    for name, tensor in network.state_dict().items():
        cast = tensor.to(dtype) if dtype is not None and name in coarse else tensor
        tensors[name] = cast.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TENSORS, lambda stream: stream.write(save(tensors)))
    text = json.dumps(spec, indent=2) + "\n"
    write_text(folder / SPEC, text)


def read_spec(folder: Path) -> dict[str, Any]:
    """Read and check `network.json`. Raises InputError: missing, damaged, foreign or of another version."""
    path = folder / SPEC
    try:
        spec = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} holds no routed network ({SPEC} is missing)") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        raise InputError(f"{path} is no routekit network")
    if spec.get("version") != VERSION:
        raise InputError(f"{path} is of version {spec.get('version')}, this routekit reads version {VERSION}")
    return spec


def load_network(path: str | Path, model: nn.Module | Backbone | None = None) -> RoutedNetwork:
    """Load what `save_network` wrote: a checkpoint's folder, or a run's. In eval mode, on the CPU.

    `model` is an instance of your own architecture, for a network that was converted from one ("custom"), or what
    `mark_units` makes of it, for one that no adapter knows. It is loaded into.
    Raises InputError if the files are missing, damaged, or do not fit together.
    """
    folder = network_folder(Path(path))
    spec = read_spec(folder)
    try:
        model_spec = TypeAdapter(ModelSpec).validate_python(spec["model"])
        state = {k: _computable(v) for k, v in load((folder / TENSORS).read_bytes()).items()}
        view = build(model_spec) if model is None else _own(model, model_spec)
        if spec.get("pruned"):
            resize(view.model, {name.removeprefix("backbone."): tensor for name, tensor in state.items()})
            view.pruned = True
        view.step = spec.get("step", 1)
        dial, branches, settled = spec.get("dial"), spec.get("branches"), spec.get("settled", [])
        config = None if spec["routers"] is None else RouterConfig(**spec["routers"])
        network = convert(
            view,
            config or FixedRoute([True] * sum(unit.skippable for unit in view.units)),
            exits=[ExitConfig(**each) for each in spec.get("exits") or []],
            branches=None if branches is None else BranchConfig(**branches),
            skips=spec.get("skips", True),
            dial=None if dial is None else DialRange(**dial),
        )
        if spec.get("alone"):
            network.stand_alone()
        reduce(network, spec["dropped"], settled)
        network.view.folded = [Fold(**fold) for fold in spec["folded"]]
        fold_structure(view.model, network.view.folded)
        network.load_state_dict(state)
    except FileNotFoundError:
        raise InputError(f"{folder / TENSORS} is missing") from None
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{folder} is damaged: {first_line(error)}") from error
    return network.eval()


def network_folder(path: Path) -> Path:
    """The folder that holds the network of `path`: itself, or `network/` of a run. Raises InputError if neither."""
    for folder in (path, path / "network"):
        if (folder / SPEC).exists():
            return folder
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if any((folder / CASCADE).exists() for folder in (path, path / "network")):
        raise InputError(f"{path} holds a cascade of networks: this takes a single one")
    if (path / "recipe.yaml").exists():
        raise InputError(f"{path} is an unfinished run: finish it with `routekit convert --resume {path}`")
    raise InputError(f"{path} holds no routed network ({SPEC} is missing)")


def _computable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _own(model: nn.Module | Backbone, spec: ModelSpec) -> Backbone:
    if isinstance(model, Backbone):
        return replace(model, spec=spec)
    return adapt(model, spec)
