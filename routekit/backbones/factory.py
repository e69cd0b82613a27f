"""A user's own network, by what makes it: `my_model.py:make_net`, `net.py:Net` or `package.module:make_net`.

The file is run, and the factory called, with `num_classes=` if it takes that. It gives a network that has an adapter,
or a `Backbone` of `mark_units` or of an adapter. The specification of a `Backbone` also defines how images are read.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.adapters import adapt
from routekit.backbones.catalog import SOURCES
from routekit.backbones.unit import Backbone, ModelSpec, evaluating
from routekit.errors import InputError, RoutekitError, reason
from routekit.registry import nearest

SOURCE = "custom"
Size = tuple[int, int, int]
_USUAL_SIZE = (3, 32, 32)
# For a factory that needs the number of classes before there are data: as many as a CIFAR network has.
_USUAL_CLASSES = 10
_EXAMPLE = "my_model.py:make_net"


def is_factory(name: str) -> bool:
    """Whether a name is that of a factory: something in a .py file, or in a module of a package."""
    place, _ = _split(name)
    parts = place.split(".")
    return place.endswith(".py") or (
        len(parts) > 1 and all(part.isidentifier() for part in parts) and parts[0] not in SOURCES
    )


def absolute(name: str) -> str:
    """Write a factory's name so that it is the same from any working folder.

    Args:
        name: The name; the `custom:` of a specification's full name is dropped.

    Returns:
        The name, with the whole path of a file.

    Raises:
        InputError: There is no such file.
    """
    place, attribute = _split(name)
    if not place.endswith(".py"):
        return f"{place}:{attribute}"
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"there is no file {place}: give the one that makes the network, as in {_EXAMPLE}")
    return f"{path}:{attribute}"


def make(
    name: str, num_classes: int | None = None, input_size: Size | None = None
) -> tuple[nn.Module | Backbone, int, Size]:
    """Call a factory, and check that the network can be used.

    Args:
        name: The factory.
        num_classes: How many classes the network must have; None for as many as it has by itself.
        input_size: (channels, height, width) of its images. None for the size of the `Backbone` that is made, or
            (3, 32, 32). The channels are always those of the `Backbone`.

    Returns:
        The network, or a view of one; its number of classes; the size of its images.

    Raises:
        InputError: There is no such factory, or it cannot be called. Or it makes something else than a network that
            sorts images of this size into this many classes.
    """
    made, label = _call(absolute(name), num_classes), _label(name)
    if isinstance(made, Backbone):
        own = made.spec.input_size
        model, size = made.model, (own[0], *(input_size or own)[1:])
    else:
        model, size = made, input_size or _USUAL_SIZE
    count = _count_classes(model, size, label)
    if num_classes not in (None, count):
        raise InputError(
            f"{label} gives a network of {count} classes, not {num_classes}: let it take num_classes=, "
            "and make a network of as many"
        )
    return made, count, size


def spec_of_factory(name: str, num_classes: int | None = None, input_size: Size | None = None) -> ModelSpec:
    """Find the specification of a factory's network, by making one.

    Args:
        name: The factory, with the whole path of a file.
        num_classes: As for `make`.
        input_size: As for `make`.

    Returns:
        The specification. Where the factory gives a `Backbone`, its own normalisation and preprocessing.

    Raises:
        InputError: As for `make`.
    """
    return _spec(name, num_classes, input_size, _digest(_split(name)[0]))


def view_of_factory(spec: ModelSpec) -> Backbone:
    """Make the network of a specification.

    Args:
        spec: What `spec_of_factory` returned, perhaps with other classes or another preprocessing.

    Returns:
        The view of it, with this specification.

    Raises:
        InputError: As for `make`; or the network has no adapter.
    """
    made, _, _ = make(spec.name, spec.num_classes, spec.input_size)
    if not isinstance(made, Backbone):
        return adapt(made, spec)
    channels = made.spec.input_size[0]
    if channels != spec.input_size[0]:
        raise InputError(f"{_label(spec.name)} takes images of {channels} channels, not {spec.input_size[0]}")
    return replace(made, spec=spec)


@cache
def _spec(name: str, num_classes: int | None, input_size: Size | None, _version: str) -> ModelSpec:
    # Whether a specification was in the cache must not change what is drawn next.
    with torch.random.fork_rng(devices=[]):
        made, count, size = make(name, num_classes, input_size)
    own = made.spec if isinstance(made, Backbone) else ModelSpec(SOURCE, name, count, size)
    mean, std = (_for_channels(own, what, size[0], _label(name)) for what in ("mean", "std"))
    return replace(own, source=SOURCE, name=name, num_classes=count, input_size=size, mean=mean, std=std)


def _for_channels(own: ModelSpec, what: str, channels: int, label: str) -> tuple[float, ...]:
    """Choose the mean or std of `channels` channels: where it is ImageNet's by default, the average of its three."""
    values: tuple[float, ...] = getattr(own, what)
    if len(values) in (1, channels):
        return values
    if values == getattr(ModelSpec, what):
        return (round(sum(values) / len(values), 6),)
    raise InputError(
        f"the ModelSpec of {label} has {len(values)} values of {what} for images of {channels} channels: "
        f"give {what} one for each, or one for all"
    )


def _split(name: str) -> tuple[str, str]:
    """A factory's file or module, and its name in there."""
    place, _, attribute = name.removeprefix(f"{SOURCE}:").rpartition(":")
    return place, attribute


def _label(name: str) -> str:
    """A factory's name without the folders of its file, for messages."""
    place, attribute = _split(name)
    return f"{Path(place).name if place.endswith('.py') else place}:{attribute}"


def _call(name: str, num_classes: int | None) -> nn.Module | Backbone:
    place, attribute = _split(name)
    label = _label(name)
    where = label.rpartition(":")[0]
    # What lies beside a file can be imported by it, also when it is called; as for modules, what lies here.
    with _importable(Path(place).parent if place.endswith(".py") else Path.cwd()):
        with _in_one_line(f"{where} cannot be imported", "repair it, or install what it needs"):
            module = _run(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        factory = getattr(module, attribute, None)
        if factory is None:
            known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
            way_out = nearest(attribute, known) if known else "there is nothing in it to call"
            raise InputError(f"{where} has no {attribute!r}: {way_out}")
        if not callable(factory) or isinstance(factory, nn.Module):
            done = isinstance(factory, nn.Module | Backbone)
            what = "a network already" if done else f"of type {type(factory).__name__}"
            raise InputError(f"{label} is {what}: name a function or a class that makes the network")
        with _in_one_line(f"{label} made no network", "repair it"):
            made = factory(**_arguments(factory, num_classes))
    if not isinstance(made, nn.Module | Backbone):
        what = "None" if made is None else f"a {type(made).__name__}"
        raise InputError(f"{label} gave {what}: it has to return an nn.Module, or what routekit.mark_units returns")
    return made


def _arguments(factory: Any, num_classes: int | None) -> dict[str, int]:
    """Choose what a factory is called with."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # not written in Python
        return {}
    named = parameters.get("num_classes")
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        if num_classes is not None or named.default is named.empty:
            return {"num_classes": num_classes or _USUAL_CLASSES}
    elif num_classes is not None and any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        # A class without a constructor of its own has that of torch, which takes nothing, in spite of its signature.
        return {} if factory.__init__ is nn.Module.__init__ else {"num_classes": num_classes}
    return {}


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules in `folder` be imported in this context."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


@contextmanager
def _in_one_line(what: str, way_out: str) -> Iterator[None]:
    """Turn whatever a user's code raises in this context into an InputError. Our own errors pass as they are."""
    try:
        yield
    except RoutekitError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{what} ({reason(error)}): {way_out}") from error


def _digest(place: str) -> str:
    """Hash the text of a factory's file, as it is now; "" of a module."""
    return hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16] if place.endswith(".py") else ""


def _run(path: Path) -> ModuleType:
    """Run a file as a module whose name no other has. It runs once, unless it changes."""
    name = f"routekit_factory_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}_{_digest(str(path))}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            # Not by a loader of importlib: that may take the compiled form of what the file was a moment ago.
            exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


@torch.no_grad()
def _count_classes(model: nn.Module, size: Size, label: str) -> int:
    """Count the logits of a network for a blank image, in eval mode."""
    x = torch.zeros(1, *size).to(next(model.parameters(), torch.empty(0)))
    way_out = (
        "give another input size, or let it return routekit.adapt(network, spec) or "
        "routekit.mark_units(network, names, spec) with its own"
    )
    with _in_one_line(f"the network of {label} takes no images of {list(size)}", way_out), evaluating(model):
        logits = model(x)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        what = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"the network of {label} makes {what} of one image: it has to make logits [1, classes]")
    return logits.shape[1]
