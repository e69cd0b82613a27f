"""Which networks have an adapter, by source. Nothing is constructed."""

from dataclasses import dataclass
from functools import cache

from routekit.backbones.cifar_resnet import DEPTHS
from routekit.backbones.pyramid import pyramid_names

# The modules of timm whose networks are instances of its ResNet or ResNetV2 classes. Others have no adapter: senet (the
# "legacy_" twins of networks in resnet), and byobnet and regnet (networks put together from a table of blocks, of which
# only some are residual). `mark_units` takes their shape-preserving blocks.
_TIMM_MODULES = ("resnet", "resnetv2", "sknet", "resnest", "res2net")


SOURCES = ("cifar", "timm", "torchvision")
"""Where networks with adapters come from; a bare name is looked for in this order."""


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be converted; `family` is the module or class that it comes from."""

    source: str
    name: str
    family: str
    has_weights: bool


def names_of(source: str) -> list[str]:
    """List the names of a source's residual networks."""
    return [entry.name for entry in _entries(source)]


def list_models() -> list[ModelEntry]:
    """List every network that has an adapter: the CIFAR family, then timm's, then torchvision's."""
    return [entry for source in SOURCES for entry in _entries(source)]


@cache
def _entries(source: str) -> list[ModelEntry]:
    if source == "cifar":
        # No checkpoint of the 74-layer network was published, none of a pyramid.
        resnets = [ModelEntry("cifar", f"resnet{depth}", "cifar", depth != 74) for depth in DEPTHS]
        return resnets + [ModelEntry("cifar", name, "pyramid", has_weights=False) for name in pyramid_names()]
    if source == "timm":
        import timm

        return [
            ModelEntry("timm", name, module, timm.is_model_pretrained(name))
            for module in _TIMM_MODULES
            for name in timm.list_models(module=module)
        ]
    from torchvision import models

    return [
        ModelEntry("torchvision", name, "resnet", has_weights=True)
        for name in models.list_models(module=models)
        if models.get_model_builder(name).__module__ == models.resnet.__name__
    ]
