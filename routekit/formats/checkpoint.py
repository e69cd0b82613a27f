"""A routed network on disk: a JSON specification and safetensors. Versioned, complete, no pickle."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from safetensors.torch import load as load_safetensors
from safetensors.torch import save
from torch import nn

from routekit import hub, manifest
from routekit.backbones.adapters import adapt
from routekit.backbones.drop import drop_unit
from routekit.backbones.load import build
from routekit.backbones.resize import resize
from routekit.backbones.unit import Backbone, Fold, ModelSpec
from routekit.backbones.weights import check_values
from routekit.documents import parse_json, read_document
from routekit.errors import InputError, first_line
from routekit.execution.fold import fold_structure
from routekit.files import whole_folder, write_atomically, write_text
from routekit.formats.description import About
from routekit.formats.drop import reduce
from routekit.junctions.convert import Source, convert, join
from routekit.junctions.junction import Junction
from routekit.junctions.kinds import junctions
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import PriceRange
from routekit.network.program import Units
from routekit.routing.router import RouterConfig

FORMAT, VERSION = "routekit", 3
SPEC, TENSORS = "network.json", "network.safetensors"
# The file in a cascade's folder in former versions.
FORMER = "cascade.json"


def save_network(
    folder: Path, network: RoutedNetwork, *, about: dict[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write `network` to `folder`, whole or not at all.

    Args:
        folder: It is made if it is not there; an older one of ours is replaced.
        network: The network.
        about: What a user of the file needs beside the network: classes, costs, accuracy.
        dtype: In which parameters are stored; they are computed with in float32. What decides, and statistics, stay as
            they are: with a threshold near 1, rounded, every image would go on.
    """
    blueprint = network.blueprint
    units = [
        (step.prefix + unit.name, unit) for step in network.steps if isinstance(step, Units) for unit in step.units
    ]
    spec = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": version("routekit"),
        "networks": [_source(source) for source in blueprint.sources],
        "joined": {"rule": blueprint.rule, "average": blueprint.average} if len(blueprint.sources) > 1 else None,
        # Whether narrow branches and forms have weights of their own.
        "alone": network.stands_alone,
        "prices": None if network.pricing is None else asdict(network.pricing.range),
        # Units that were dropped because no image runs them, and those without a router because every image does.
        "dropped": [name for name, unit in units if unit.dropped],
        "settled": [name for name, unit in units if not (unit.decides or unit.dropped)],
        "folded": [asdict(fold) for fold in network.folded],
        "about": about,
    }
    deciding = {id(parameter) for parameter in network.routing_parameters()}
    coarse = {name for name, parameter in network.named_parameters() if id(parameter) not in deciding}
    tensors = {
        name: tensor.to("cpu", dtype if name in coarse else None).contiguous()
        for name, tensor in network.state_dict().items()
    }
    with whole_folder(folder, "network") as made:
        write_atomically(made / TENSORS, lambda stream: stream.write(save(tensors)))
        write_text(made / SPEC, json.dumps(spec, indent=2) + "\n")


def _source(source: Source) -> dict[str, Any]:
    view = source.view
    return {
        "model": asdict(view.spec),
        # Of a pruned network, the shapes that its tensors had before anything was decided, or dropped.
        "pruned": source.shapes,
        "dropped": list(source.dropped),
        "step": view.step,
        "resolution": view.resolution,
        "routers": None if source.routers is None else asdict(source.routers),
        "junctions": [{"kind": junction.kind} | asdict(junction) for junction in source.junctions],  # type: ignore[call-overload]
    }


class _Model(BaseModel):
    num_classes: int


class _Network(BaseModel):
    model: _Model


class _Document(BaseModel):
    """What is read of `network.json` beside the blueprint of its networks, whatever made it."""

    networks: Annotated[list[_Network], Field(min_length=1, max_length=16)]
    about: About

    @model_validator(mode="after")
    def _has_all_classes(self) -> Self:
        if self.about.classes is not None and len(self.about.classes) != self.networks[0].model.num_classes:
            raise ValueError(f"{len(self.about.classes)} names for {self.networks[0].model.num_classes} classes")
        return self


def read_spec(folder: Path) -> dict[str, Any]:
    """Read and check `network.json`. Raises InputError: missing, damaged, foreign or of another version."""
    path = folder / SPEC
    if not path.exists():
        raise InputError(f"{folder} holds no routed network ({SPEC} is missing)")
    try:
        spec = parse_json(read_document(path), path)
    except InputError:
        manifest.verify(path, needed=True)  # which says it better
        raise
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        manifest.verify(path, needed=True)
        raise InputError(f"{path} is no routekit network")
    if spec.get("version") != VERSION:
        # The first version did not store its number.
        made_by, number = spec.get("made_by", "0.1"), spec.get("version")
        raise InputError(
            f"{path} is of version {number}, by routekit {made_by}; this one reads version {VERSION}: {WAY_OUT}"
        )
    manifest.verify(path, needed=True)
    try:
        _Document.model_validate(spec)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{path} is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return spec


WAY_OUT = "make it again, or use it with that version"


Model = nn.Module | Backbone


def load(
    path: str | Path, model: Model | Sequence[Model] | Callable[[], Model] | None = None, *, verify: bool = True
) -> RoutedNetwork:
    """Load what `save` or `routekit export` wrote: a run, or a compact checkpoint. In eval mode, on the CPU.

    Args:
        path: The folder; or "hf://user/name", or "hf://user/name@revision", on the Hugging Face Hub.
        model: An instance of your own architecture, for a network that was converted from one, or what `mark_units`
            makes of it. The values are loaded into it. For a cascade, a list with one for each network, or a function
            that makes one.
        verify: Whether the files have to be as they were written, by the sizes and digests in `routekit.json`.

    Returns:
        The network.

    Raises:
        InputError: The files are missing, damaged, or do not fit together.
        RoutekitError: The Hub cannot be reached.
    """
    if isinstance(path, str) and path.startswith(hub.SCHEME):
        path = hub.local(path)
    with nullcontext() if verify else manifest.unverified():
        return _load(network_folder(Path(path)), model)


def _load(folder: Path, model: Model | Sequence[Model] | Callable[[], Model] | None) -> RoutedNetwork:
    spec = read_spec(folder)
    count = len(spec.get("networks") or [None])
    if model is None or isinstance(model, nn.Module | Backbone):
        given = [model] * (count if model is None else 1)
    else:
        given = list(model) if isinstance(model, Sequence) else [model() for _ in range(count)]
    if len(given) != count:
        raise InputError(f"{folder} holds {count} networks, model= {len(given)}: give a list, with one for each")
    manifest.verify(folder / TENSORS, needed=True)
    try:
        state = load_safetensors((folder / TENSORS).read_bytes())
        network = _rebuilt(spec, given)
        check_values(state, network.state_dict(), str(folder / TENSORS))
        network.load_state_dict(state)  # into float32, whatever they are stored in
    except FileNotFoundError:
        raise InputError(f"{folder / TENSORS} is missing") from None
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{folder} is damaged: {first_line(error)}") from error
    return network.eval()


def _rebuilt(spec: dict[str, Any], given: Sequence[nn.Module | Backbone | None]) -> RoutedNetwork:
    """Build the network of a specification again; the values of its tensors are yet to be loaded."""
    made: list[RoutedNetwork] = []
    folded = [Fold(**fold) for fold in spec["folded"]]
    prices = None if spec["prices"] is None else PriceRange(**spec["prices"])
    for document, model in zip(spec["networks"], given, strict=True):
        model_spec = TypeAdapter(ModelSpec).validate_python(document["model"])
        if model is None and model_spec.source == "custom":  # a file never names code that is run
            raise InputError(
                f"{model_spec.label} is your own network, and no code is run because a checkpoint names it: in Python, "
                "give an instance of it as model=; on the command line, use the run, or export it to onnx"
            )
        if model is None:
            view = build(model_spec)
        else:
            view = replace(model, spec=model_spec) if isinstance(model, Backbone) else adapt(model, model_spec)
        for unit in view.units:
            if unit.name in document["dropped"]:
                drop_unit(unit)
        if document["pruned"] is not None:
            resize(view.model, document["pruned"])
            view.pruned = True
        view.step = document["step"]
        # Files of former versions do not say it.
        view.resolution = tuple(document["resolution"]) if document.get("resolution") else None
        routers = None if document["routers"] is None else RouterConfig(**document["routers"])
        made.append(
            convert(view, [_junction(each) for each in document["junctions"]], routers=routers, adaptive_cost=prices)
        )
    network = made[0] if len(made) == 1 else join(made, **spec["joined"])
    if spec["alone"]:
        network.stand_alone()
    reduce(network, spec["dropped"], spec["settled"])
    fold_structure(network, folded)
    network.folded = folded
    return network


def _junction(document: dict[str, Any]) -> Junction:
    values = dict(document)
    kind = junctions[values.pop("kind")]
    return TypeAdapter(kind).validate_python({**kind.former, **values})


def network_folder(path: Path) -> Path:
    """The folder that holds the network of `path`: itself, or `network/` of a run. Raises InputError if neither."""
    for folder in (path, path / "network"):
        if (folder / SPEC).exists():
            return folder
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if any((folder / FORMER).exists() for folder in (path, path / "network")):
        raise InputError(f"{path} holds a cascade of routekit 0.1: {WAY_OUT}")
    if (path / "recipe.yaml").exists():
        raise InputError(f"{path} is an unfinished run of routekit 0.1: {WAY_OUT}")
    if (path / "run.yaml").exists():
        raise InputError(f"{path} is an unfinished run: finish it with `routekit convert --resume {path}`")
    raise InputError(f"{path} holds no routed network ({SPEC} is missing)")


def read_about(path: Path) -> dict[str, Any]:
    """Read what is beside the network of a run or a checkpoint: classes, the record. Raises InputError."""
    about: dict[str, Any] = read_spec(network_folder(path))["about"]
    return about
