"""From a model to the view that routing needs: one adapter per family, found by the model's type."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from routekit.backbones.unit import Backbone, ModelSpec
from routekit.errors import InputError

A = TypeVar("A", bound=Callable[..., Backbone])

_adapters: dict[type, Callable[[Any, ModelSpec], Backbone]] = {}
# Which of our own adapters to import for a model that comes from a library.
_BUILT_IN = {"torchvision": "torchvision_resnet", "timm": "timm_resnet"}


def register_adapter(model_type: type[nn.Module]) -> Callable[[A], A]:
    """Register `adapter(model, spec) -> Backbone` for models of a type and its subclasses."""

    def enter(adapter: A) -> A:
        _adapters[model_type] = adapter
        return adapter

    return enter


def adapt(model: nn.Module, spec: ModelSpec) -> Backbone:
    """View `model` by the adapter of its type, or of the nearest type that it inherits from.

    Raises InputError for a model that no adapter knows.
    """
    for ancestor in type(model).__mro__:
        library = ancestor.__module__.split(".")[0]
        if library in _BUILT_IN:
            importlib.import_module(f"routekit.backbones.{_BUILT_IN[library]}")
        if ancestor in _adapters:
            return _adapters[ancestor](model, spec)
    raise InputError(
        f"no adapter knows {type(model).__name__}: register one with @routekit.register_adapter, "
        "or name its shape-preserving blocks to routekit.mark_units"
    )
