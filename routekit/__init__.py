"""routekit: convert a pretrained ResNet into a dynamically routed one, at the average cost you ask for.

>>> import routekit
>>> view = routekit.load_backbone("resnet56", weights="weights.safetensors")
>>> network = routekit.convert(view, routekit.RouterConfig(kind="fc"))
>>> costs = routekit.CostModel.measure(network)
>>> network = routekit.load("runs/resnet56-cifar10-l1+cascade-50pct-seed0")
>>> logits = network.predict(images)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routekit.backbones.adapters import adapt, register_adapter
    from routekit.backbones.load import load_backbone
    from routekit.backbones.marked import mark_units
    from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
    from routekit.cost.model import CostModel
    from routekit.errors import RoutekitError
    from routekit.execution.prepare import optimize
    from routekit.export.cascade import load
    from routekit.network.convert import convert
    from routekit.network.network import RoutedNetwork
    from routekit.routing.router import RouterConfig

# Public name -> where it is defined; imported on first use, so that `import routekit` is instant.
_HOME = {
    "Backbone": "routekit.backbones.unit:Backbone",
    "CostModel": "routekit.cost.model:CostModel",
    "ModelSpec": "routekit.backbones.unit:ModelSpec",
    "ResidualUnit": "routekit.backbones.unit:ResidualUnit",
    "RoutedNetwork": "routekit.network.network:RoutedNetwork",
    "RouterConfig": "routekit.routing.router:RouterConfig",
    "RoutekitError": "routekit.errors:RoutekitError",
    "adapt": "routekit.backbones.adapters:adapt",
    "convert": "routekit.network.convert:convert",
    "load": "routekit.export.cascade:load",
    "load_backbone": "routekit.backbones.load:load_backbone",
    "mark_units": "routekit.backbones.marked:mark_units",
    "optimize": "routekit.execution.prepare:optimize",
    "register_adapter": "routekit.backbones.adapters:register_adapter",
}

__all__ = [
    "Backbone",
    "CostModel",
    "ModelSpec",
    "ResidualUnit",
    "RoutedNetwork",
    "RoutekitError",
    "RouterConfig",
    "adapt",
    "convert",
    "load",
    "load_backbone",
    "mark_units",
    "optimize",
    "register_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'routekit' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
