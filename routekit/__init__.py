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
    from routekit.api import aim as aim
    from routekit.api import evaluate as evaluate
    from routekit.api import export as export
    from routekit.api import fit as fit
    from routekit.api import run as run
    from routekit.api import save as save
    from routekit.backbones.adapters import adapt as adapt
    from routekit.backbones.adapters import register_adapter as register_adapter
    from routekit.backbones.load import load_backbone as load_backbone
    from routekit.backbones.marked import mark_units as mark_units
    from routekit.backbones.unit import Backbone as Backbone
    from routekit.backbones.unit import ModelSpec as ModelSpec
    from routekit.backbones.unit import ResidualUnit as ResidualUnit
    from routekit.cost.table import CostTable as CostTable
    from routekit.errors import RoutekitError as RoutekitError
    from routekit.execution.prepare import optimize as optimize
    from routekit.formats.checkpoint import load as load
    from routekit.junctions.again import Again as Again
    from routekit.junctions.branch import Branch as Branch
    from routekit.junctions.cascade import Cascade as Cascade
    from routekit.junctions.convert import convert as convert
    from routekit.junctions.convert import join as join
    from routekit.junctions.exit import Exit as Exit
    from routekit.junctions.junction import Junction as Junction
    from routekit.junctions.skip import Skip as Skip
    from routekit.junctions.tree import Tree as Tree
    from routekit.network.network import RoutedNetwork as RoutedNetwork
    from routekit.network.pricing import PriceRange as PriceRange
    from routekit.publish import push as push
    from routekit.routing.router import RouterConfig as RouterConfig
    from routekit.training.schedule import TrainingConfig as TrainingConfig

# Public name -> the module that defines it. It is imported on first use, so that `import routekit` is instant.
_HOME = {
    "Again": "junctions.again",
    "Backbone": "backbones.unit",
    "Branch": "junctions.branch",
    "Cascade": "junctions.cascade",
    "CostTable": "cost.table",
    "Exit": "junctions.exit",
    "Junction": "junctions.junction",
    "ModelSpec": "backbones.unit",
    "PriceRange": "network.pricing",
    "ResidualUnit": "backbones.unit",
    "RoutedNetwork": "network.network",
    "RoutekitError": "errors",
    "RouterConfig": "routing.router",
    "Skip": "junctions.skip",
    "TrainingConfig": "training.schedule",
    "Tree": "junctions.tree",
    "adapt": "backbones.adapters",
    "aim": "api",
    "convert": "junctions.convert",
    "evaluate": "api",
    "export": "api",
    "fit": "api",
    "join": "junctions.convert",
    "load": "formats.checkpoint",
    "load_backbone": "backbones.load",
    "mark_units": "backbones.marked",
    "optimize": "execution.prepare",
    "push": "publish",
    "register_adapter": "backbones.adapters",
    "run": "api",
    "save": "api",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'routekit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"routekit.{_HOME[name]}"), name)
