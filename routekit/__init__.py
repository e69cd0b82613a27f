"""routekit: convert a pretrained ResNet into a dynamically routed one, at the average cost you ask for.

>>> import routekit
>>> view = routekit.load_backbone("resnet56", weights="weights.safetensors")
>>> network = routekit.convert(view, [routekit.Cascade(width=0.3)])
>>> routekit.fit(network, "path/to/images", target="50%", teacher=view.model)
>>> print(routekit.evaluate(network, "path/to/images").accuracy)
>>> routekit.save(network, "mine")
>>> answer = routekit.optimize(routekit.load("mine"))(images)
>>> routekit.export(network, "onnx")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routekit.api import evaluate, export, fit, run, save
    from routekit.backbones.adapters import adapt, register_adapter
    from routekit.backbones.load import load_backbone
    from routekit.backbones.marked import mark_units
    from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
    from routekit.cost.table import CostTable
    from routekit.errors import RoutekitError
    from routekit.execution.prepare import optimize
    from routekit.formats.checkpoint import load
    from routekit.junctions.again import Again
    from routekit.junctions.branch import Branch
    from routekit.junctions.cascade import Cascade
    from routekit.junctions.convert import convert, join
    from routekit.junctions.exit import Exit
    from routekit.junctions.junction import Junction
    from routekit.junctions.skip import Skip
    from routekit.junctions.tree import Tree
    from routekit.network.network import RoutedNetwork
    from routekit.network.pricing import PriceRange
    from routekit.routing.router import RouterConfig
    from routekit.training.schedule import TrainingConfig

# Public name -> where it is defined; imported on first use, so that `import routekit` is instant.
_HOME = {
    "Again": "routekit.junctions.again:Again",
    "Backbone": "routekit.backbones.unit:Backbone",
    "Branch": "routekit.junctions.branch:Branch",
    "Cascade": "routekit.junctions.cascade:Cascade",
    "CostTable": "routekit.cost.table:CostTable",
    "Exit": "routekit.junctions.exit:Exit",
    "Junction": "routekit.junctions.junction:Junction",
    "ModelSpec": "routekit.backbones.unit:ModelSpec",
    "PriceRange": "routekit.network.pricing:PriceRange",
    "ResidualUnit": "routekit.backbones.unit:ResidualUnit",
    "RoutedNetwork": "routekit.network.network:RoutedNetwork",
    "RoutekitError": "routekit.errors:RoutekitError",
    "RouterConfig": "routekit.routing.router:RouterConfig",
    "Skip": "routekit.junctions.skip:Skip",
    "TrainingConfig": "routekit.training.schedule:TrainingConfig",
    "Tree": "routekit.junctions.tree:Tree",
    "adapt": "routekit.backbones.adapters:adapt",
    "convert": "routekit.junctions.convert:convert",
    "evaluate": "routekit.api:evaluate",
    "export": "routekit.api:export",
    "fit": "routekit.api:fit",
    "join": "routekit.junctions.convert:join",
    "load": "routekit.formats.checkpoint:load",
    "load_backbone": "routekit.backbones.load:load_backbone",
    "mark_units": "routekit.backbones.marked:mark_units",
    "optimize": "routekit.execution.prepare:optimize",
    "register_adapter": "routekit.backbones.adapters:register_adapter",
    "run": "routekit.api:run",
    "save": "routekit.api:save",
}

__all__ = [
    "Again",
    "Backbone",
    "Branch",
    "Cascade",
    "CostTable",
    "Exit",
    "Junction",
    "ModelSpec",
    "PriceRange",
    "ResidualUnit",
    "RoutedNetwork",
    "RoutekitError",
    "RouterConfig",
    "Skip",
    "TrainingConfig",
    "Tree",
    "adapt",
    "convert",
    "evaluate",
    "export",
    "fit",
    "join",
    "load",
    "load_backbone",
    "mark_units",
    "optimize",
    "register_adapter",
    "run",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'routekit' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
