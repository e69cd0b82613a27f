"""A user's own network, by what makes it: `my_model.py:make_net`, `net.py:Net` or `package.module:make_net`.

The file is run, and the factory called, with `num_classes=` if it takes that. What it gives is a network that an
adapter knows, or a `Backbone`, as `mark_units` or an adapter makes it: then that says, too, how images are read.
"""

import hashlib
import importlib
import importlib.util
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
from routekit.backbones.unit import Backbone, ModelSpec, evaluating
from routekit.errors import InputError, RoutekitError, reason
from routekit.registry import nearest

SOURCE = "custom"
_LIBRARIES = ("cifar", "timm", "torchvision")
_USUAL_SIZE = (3, 32, 32)
# For a factory that has to be told how many classes there are, while nobody knows: as many as a CIFAR network has.
_USUAL_CLASSES = 10
_EXAMPLE = "my_model.py:make_net"


def is_factory(name: str) -> bool:
    """Whether `name` says what makes a network: something in a .py file, or in a module of a package."""
    place, _ = _split(name)
    parts = place.split(".")
    return place.endswith(".py") or (
        len(parts) > 1 and all(part.isidentifier() for part in parts) and parts[0] not in _LIBRARIES
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
    name: str, num_classes: int | None = None, input_size: tuple[int, int, int] | None = None
) -> nn.Module | Backbone:
    """Call a factory, and see whether what it gives can be used.

    Args:
        name: The factory.
        num_classes: How many classes the network has to tell apart; None for what it tells apart by itself.
        input_size: (channels, height, width) of its images. None for the size of the `Backbone` that is given, or
            (3, 32, 32); the channels are always those of the `Backbone`.

    Returns:
        What the factory gives: a network, or a view of one.

    Raises:
        InputError: The factory is not there, cannot be called, or gives something else than a network that sorts images
            of this size into this many classes.
    """
    made = _call(absolute(name), num_classes)
    count = _count_classes(made, _size(made, input_size), _label(name))
    if num_classes is not None and count != num_classes:
        raise InputError(
            f"{_label(name)} gives a network of {count} classes, not {num_classes}: let it take num_classes=, "
            "and make a network of as many"
        )
    return made


def spec_of_factory(
    name: str, num_classes: int | None = None, input_size: tuple[int, int, int] | None = None
) -> ModelSpec:
    """Say what a factory's network is, as it says itself or as is found by making one.

    Args:
        name: The factory.
        num_classes: As for `make`.
        input_size: As for `make`.

    Returns:
        The specification. Where the factory gives a `Backbone`, its own normalisation and preprocessing.

    Raises:
        InputError: As for `make`.
    """
    name = absolute(name)
    return _spec(name, num_classes, input_size, _digest(name))


def view_of_factory(spec: ModelSpec) -> Backbone:
    """Make the network of `spec` anew.

    Args:
        spec: What `spec_of_factory` says, perhaps with other classes or another preprocessing.

    Returns:
        The view of it, with this specification.

    Raises:
        InputError: As for `make`; or no adapter knows the network.
    """
    made = make(spec.name, spec.num_classes, spec.input_size)
    if not isinstance(made, Backbone):
        return adapt(made, spec)
    channels = made.spec.input_size[0]
    if channels != spec.input_size[0]:
        raise InputError(f"{_label(spec.name)} takes images of {channels} channels, not {spec.input_size[0]}")
    return replace(made, spec=spec)


@cache
def _spec(name: str, num_classes: int | None, input_size: tuple[int, int, int] | None, _version: str) -> ModelSpec:
    # Whether a specification was known already must not change what is drawn next.
    with torch.random.fork_rng(devices=[]):
        made = make(name, num_classes, input_size)
    size = _size(made, input_size)
    count = num_classes or _count_classes(made, size, _label(name))
    own = made.spec if isinstance(made, Backbone) else ModelSpec(SOURCE, name, count, size)
    mean, std = (_for_channels(own, what, size[0], _label(name)) for what in ("mean", "std"))
    return replace(own, source=SOURCE, name=name, num_classes=count, input_size=size, mean=mean, std=std)


def _for_channels(own: ModelSpec, what: str, channels: int, label: str) -> tuple[float, ...]:
    """The mean or std of `channels` channels: ImageNet's on average where a specification of others left it at that."""
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
    """A factory's file or module, and what it is called in there."""
    place, _, attribute = name.removeprefix(f"{SOURCE}:").rpartition(":")
    return place, attribute


def _label(name: str) -> str:
    """A factory's name as it is short enough for a message."""
    place, attribute = _split(name)
    return f"{Path(place).name if place.endswith('.py') else place}:{attribute}"


def _size(made: nn.Module | Backbone, asked: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if not isinstance(made, Backbone):
        return asked or _USUAL_SIZE
    channels, height, width = made.spec.input_size
    return (channels, height, width) if asked is None else (channels, *asked[1:])


def _call(name: str, num_classes: int | None) -> nn.Module | Backbone:
    """Find a factory and call it; what it gives is a network or a view of one."""
    place, attribute = _split(name)
    label = _label(name)
    # What lies beside a file can be imported by it, also when it is called; as for modules, what lies here.
    with _importable(Path(place).parent if place.endswith(".py") else Path.cwd()):
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
        factory = getattr(module, attribute, None)
        if factory is None:
            known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
            way_out = nearest(attribute, known) if known else "there is nothing in it to call"
            raise InputError(f"{label.rpartition(':')[0]} has no {attribute!r}: {way_out}")
        if not callable(factory) or isinstance(factory, nn.Module):
            what = (
                "a network already"
                if isinstance(factory, nn.Module | Backbone)
                else f"of type {type(factory).__name__}"
            )
            raise InputError(f"{label} is {what}: name a function or a class that makes the network")
        try:
            made = factory(**_arguments(factory, num_classes))
        except RoutekitError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"{label} made no network ({reason(error)}): repair it") from error
    if not isinstance(made, nn.Module | Backbone):
        what = "None" if made is None else f"a {type(made).__name__}"
        raise InputError(f"{label} gave {what}: it has to return an nn.Module, or what routekit.mark_units returns")
    return made


def _arguments(factory: Any, num_classes: int | None) -> dict[str, int]:
    """What a factory is called with."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # not written in Python
        return {}
    named = parameters.get("num_classes")
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        if num_classes is not None or named.default is named.empty:
            return {"num_classes": num_classes or _USUAL_CLASSES}
    elif num_classes is not None and any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        # A class without a constructor of its own has that of torch, which takes nothing, whatever its signature says.
        return {} if factory.__init__ is nn.Module.__init__ else {"num_classes": num_classes}
    return {}


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules in `folder` be imported for as long as it lasts."""
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _digest(name: str) -> str:
    """What tells a factory's file from what it was before it was changed."""
    place, _ = _split(name)
    return hashlib.sha256(Path(place).read_bytes()).hexdigest()[:16] if place.endswith(".py") else ""


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module of a name that no other has; once, unless it changes."""
    name = f"routekit_factory_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}_{_digest(f'{path}:')}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Not by its loader: that may take the compiled form of what the file was a moment ago.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _not_imported(path.name, error) from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _not_imported(name, error) from error


def _not_imported(what: str, error: BaseException) -> RoutekitError:
    if isinstance(error, RoutekitError):
        return error
    return InputError(f"{what} cannot be imported ({reason(error)}): repair it, or install what it needs")


@torch.no_grad()
def _count_classes(made: nn.Module | Backbone, size: tuple[int, int, int], label: str) -> int:
    """How many logits a network has for a blank image, in eval mode."""
    model = made.model if isinstance(made, Backbone) else made
    like = next(model.parameters(), torch.empty(0))
    x = torch.zeros(1, *size).to(like)
    try:
        with evaluating(model):
            logits = model(x)
    except Exception as error:  # whatever the user's forward raises
        raise InputError(
            f"the network of {label} takes no images of {list(size)} ({reason(error)}): give another input size, or "
            "let it return routekit.adapt(network, spec) or routekit.mark_units(network, names, spec) with its own"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        what = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"the network of {label} makes {what} of one image: it has to make logits [1, classes]")
    return logits.shape[1]
