"""From a model to the view that routing needs: one adapter per family, found by the model's type."""

import importlib
from collections.abc import Callable
from functools import singledispatch

from torch import nn

from routekit.backbones.unit import Backbone, ModelSpec
from routekit.errors import InputError

Adapter = Callable[..., Backbone]

# Which of our own adapters to import for a model that comes from a library.
_BUILT_IN = {"torchvision": "torchvision_resnet", "timm": "timm_resnet"}


@singledispatch
def _adapt(model: nn.Module, spec: ModelSpec) -> Backbone:  # noqa: ARG001
    raise InputError(
        f"no adapter knows {type(model).__name__}: register one with @routekit.register_adapter, "
        "or name its shape-preserving blocks to routekit.mark_units"
    )


def register_adapter(model_type: type[nn.Module]) -> Callable[[Adapter], Adapter]:
    """Register `adapter(model, spec) -> Backbone` for models of a type and its subclasses."""
    return _adapt.register(model_type)


def adapt(model: nn.Module, spec: ModelSpec) -> Backbone:
    """View a model by the adapter of its type, or of the nearest type that it inherits from.

    Args:
        model: The model.
        spec: Its specification.

    Returns:
        The view.

    Raises:
        InputError: The model has no adapter.
    """
    for ancestor in type(model).__mro__:
        library = ancestor.__module__.split(".")[0]
        if library in _BUILT_IN:
            importlib.import_module(f"routekit.backbones.{_BUILT_IN[library]}")
    return _adapt(model, spec)
