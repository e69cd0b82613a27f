"""`load_backbone`: "resnet110", "timm:resnet50", "torchvision:resnet50" or "my_model.py:make_net", with weights."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from routekit.backbones.adapters import adapt
from routekit.backbones.catalog import SOURCES, names_of
from routekit.backbones.cifar_resnet import DEPTHS, CifarResNet
from routekit.backbones.factory import SOURCE, absolute, is_factory, spec_of_factory, view_of_factory
from routekit.backbones.pyramid import pyramid, pyramid_names
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.backbones.weights import State, load_into, read_state_dict
from routekit.errors import InputError, RoutekitError, first_line
from routekit.registry import nearest

# Published CIFAR-10 weights (BSD-2); the digits in each name are the start of the file's sha256.
_PUBLISHED = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
_PUBLISHED_FILES = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet44": "resnet44-014dd654.th",
    "resnet56": "resnet56-4bfd9763.th",
    "resnet110": "resnet110-1d1ed7c2.th",
    "resnet1202": "resnet1202-f3b1deed.th",
}


def resolve(name: str) -> tuple[str, str]:
    """Split a network's name into its source and bare name; a bare name means CIFAR, then timm, then torchvision.

    Args:
        name: The name, or what makes a network of the user's own: `my_model.py:make_net`, `package.module:make_net`.

    Returns:
        The source, and its name for the network; of a file, the whole path.

    Raises:
        InputError: No source has the network; the nearest names are listed. Or there is no such file.
    """
    if is_factory(name):
        return SOURCE, absolute(name)
    if name.endswith(".py"):
        raise InputError(f"{name} is a file: say what in it makes the network, as in {name}:make_net")
    source, colon, bare = name.rpartition(":")
    if colon and source not in SOURCES:
        raise InputError(
            f"unknown source {source!r}: cifar, timm or torchvision, or a network of your own, as my_model.py:make_net"
        )
    # One source at a time: a CIFAR network's name imports neither library.
    candidates = [source] if colon else SOURCES
    for candidate in candidates:
        if _has(candidate, bare):
            return candidate, bare
    if any(_is_another(candidate, bare) for candidate in candidates):
        raise InputError(
            f"{name} is no ResNet that routekit knows: choose one of `routekit models`, or say where its residual "
            "blocks are (`mark_units`) in a file of your own, and convert my_model.py:make_net"
        )
    if Path(name, "run.yaml").exists():
        raise InputError(f"{name} is a run: name its network here, and give model.weights={name}")
    known = [f"{candidate}:{each}" for candidate in candidates for each in names_of(candidate)]
    if not colon:
        known = [each.removeprefix("cifar:") for each in known]
    raise InputError(f"unknown model {name!r}: {nearest(name, known)}")


def _has(source: str, name: str) -> bool:
    # timm's names may carry the tag of a set of weights: resnet50.a1_in1k.
    bare, _, tag = name.partition(".") if source == "timm" else (name, "", "")
    if bare not in names_of(source):
        return False
    if tag:
        import timm

        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            tags = timm.list_pretrained(f"{bare}.*")
            raise InputError(f"timm has no weights {tag!r} for {bare}: {nearest(name, tags)}") from error
    return True


def _is_another(source: str, name: str) -> bool:
    """Whether a library has a network of this name, of another family."""
    if source == "timm":
        import timm

        return bool(timm.is_model(name.partition(".")[0]))
    if source == "torchvision":
        from torchvision import models

        return name in models.list_models(module=models)
    return False


def spec_of(name: str, num_classes: int | None = None, input_size: tuple[int, int, int] | None = None) -> ModelSpec:
    """Make the specification of a network, from its source and the arguments.

    Args:
        name: What `resolve` takes.
        num_classes: In place of the source's own. A factory is called with it.
        input_size: In place of the source's own. A `Backbone` from a factory keeps its number of channels.

    Returns:
        The specification.

    Raises:
        InputError: There is no such network, or not for so many classes or such images.
    """
    source, bare = resolve(name)
    if source == SOURCE:
        return spec_of_factory(bare, num_classes, input_size)
    spec = _own_spec(source, bare)
    if input_size is not None and input_size[0] != spec.input_size[0]:
        raise InputError(f"{name} takes images of {spec.input_size[0]} channels, not {input_size[0]}")
    return replace(spec, num_classes=num_classes or spec.num_classes, input_size=input_size or spec.input_size)


def _own_spec(source: str, name: str) -> ModelSpec:
    if source == "cifar":
        return ModelSpec("cifar", name, 10, (3, 32, 32))
    if source == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        if config is not None:
            return ModelSpec("timm", name, config.num_classes, config.input_size, config.mean, config.std)
    return ModelSpec(source, name, 1000, (3, 224, 224))


def has_published_weights(name: str) -> bool:
    """Whether the weights "auto" have something for this network; nothing is downloaded."""
    source, bare = resolve(name)
    if source == "timm":
        import timm

        return timm.is_model_pretrained(bare)
    return source == "torchvision" or (source == "cifar" and bare in _PUBLISHED_FILES)


def build(spec: ModelSpec) -> Backbone:
    """Build the network of a specification.

    Args:
        spec: Of a network of the user's own, its name is that of its factory.

    Returns:
        The network, randomly initialised, or as its factory makes it.

    Raises:
        InputError: Only the user can build it, or their factory does not.
    """
    if spec.source == SOURCE and is_factory(spec.name):
        return view_of_factory(spec)
    return adapt(_construct(spec), spec)


def _construct(spec: ModelSpec) -> nn.Module:
    if spec.source == "cifar":
        if spec.name in pyramid_names():
            return pyramid(spec)
        depth = int(spec.name.removeprefix("resnet")) if re.fullmatch(r"resnet[0-9]{1,4}", spec.name) else 0
        if depth % 6 != 2 or not 8 <= depth <= DEPTHS[-1]:
            raise InputError(f"unknown model {spec.name[:100]!r}: {nearest(spec.name, names_of('cifar'))}")
        return CifarResNet(depth, spec.num_classes)
    if spec.source in SOURCES:
        if not _has(spec.source, spec.name):  # from a file; timm would look for some names on the network
            raise InputError(f"unknown model {spec.full_name[:100]!r}: {nearest(spec.name, names_of(spec.source))}")
        return _from_library(spec, num_classes=spec.num_classes)
    raise InputError(f"{spec.full_name} is your own network: give an instance of it as model=")


def _from_library(spec: ModelSpec, **options: Any) -> nn.Module:
    model: nn.Module
    if spec.source == "timm":
        import timm

        model = timm.create_model(spec.name, **options)
    else:
        import torchvision

        model = torchvision.models.get_model(spec.name, **options)
    return model


def load_backbone(
    name: str,
    *,
    weights: str = "auto",
    num_classes: int | None = None,
    input_size: tuple[int, int, int] | None = None,
    spec: ModelSpec | None = None,
) -> Backbone:
    """Load a network with weights.

    Args:
        name: "resnet110", "timm:resnet50", "torchvision:resnet50", or what makes your own: "my_model.py:make_net".
        weights: "auto" (its source's own, or those that a factory gives it), "none" (random, or as a factory makes
            it), a file or a URL.
        num_classes: How many classes; None for those of the source. A classifier of another size is replaced, with
            a note in `Backbone.notes`.
        input_size: (channels, height, width) of its images; None for that of the source.
        spec: In place of all that `spec_of` finds, the two arguments before this one included.

    Returns:
        The network.

    Raises:
        InputError: An unknown name, or a bad file.
        RoutekitError: A download fails.
    """
    spec = spec or spec_of(name, num_classes, input_size)
    view = build(spec)
    if weights == "none" or (weights == "auto" and spec.source == SOURCE):
        return view
    if weights != "auto":
        state, source = read_state_dict(weights), Path(weights).name
    elif not has_published_weights(name):
        raise InputError(f"no weights are published for {name}: give model.weights=PATH, or model.weights=none")
    elif spec.source == "cifar":
        source = _PUBLISHED_FILES[spec.name]
        state = read_state_dict(_PUBLISHED + source)
    else:
        state, source = _library_state(spec), spec.full_name
    view.notes += load_into(view.model, state, classifier=view.classifier, source=source)
    return view


def _library_state(spec: ModelSpec) -> State:
    """Fetch the source's own weights, with its own classifier."""
    pretrained: dict[str, Any] = {"pretrained": True} if spec.source == "timm" else {"weights": "DEFAULT"}
    try:
        return _from_library(spec, **pretrained).state_dict()
    # The libraries raise whatever their download clients raise.
    except Exception as error:
        raise RoutekitError(
            f"cannot download the weights of {spec.full_name} ({first_line(error)}): give model.weights=PATH, or "
            "model.weights=none"
        ) from error
