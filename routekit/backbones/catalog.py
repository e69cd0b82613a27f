"""Which networks the adapters claim, by source; nothing is constructed."""

from dataclasses import dataclass
from functools import cache

from routekit.backbones.cifar_resnet import DEPTHS
from routekit.backbones.pyramid import pyramid_names

# The modules of timm whose networks are instances of its ResNet or ResNetV2 classes. Left out, for want of an adapter:
# senet (the "legacy_" twins of networks in resnet), and byobnet and regnet (networks put together from a table of
# blocks, of which only some are residual); `mark_units` takes their shape-preserving blocks.
_TIMM_MODULES = ("resnet", "resnetv2", "sknet", "resnest", "res2net")


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be converted; `family` is the module or class that it comes from."""

    source: str
    name: str
    family: str
    has_weights: bool


@cache
def names_of(source: str) -> tuple[str, ...]:
    """The names that a source has for residual networks."""
    return tuple(entry.name for entry in _entries(source))


def list_models() -> list[ModelEntry]:
    """Every network that the adapters claim: the CIFAR family, then timm's, then torchvision's."""
    return [entry for source in ("cifar", "timm", "torchvision") for entry in _entries(source)]


@cache
def _entries(source: str) -> tuple[ModelEntry, ...]:
    if source == "cifar":
        # No checkpoint of the 74-layer network was published, none of a pyramid.
        resnets = (ModelEntry("cifar", f"resnet{depth}", "cifar", depth != 74) for depth in DEPTHS)
        return (*resnets, *(ModelEntry("cifar", name, "pyramid", has_weights=False) for name in pyramid_names()))
    if source == "timm":
        import timm

        return tuple(
            ModelEntry("timm", name, module, _timm_has_weights(name))
            for module in _TIMM_MODULES
            for name in timm.list_models(module=module)
        )
    from torchvision import models

    return tuple(
        ModelEntry("torchvision", name, "resnet", True)
        for name in models.list_models(module=models)
        if models.get_model_builder(name).__module__ == models.resnet.__name__
    )


def _timm_has_weights(name: str) -> bool:
    import timm

    return timm.is_model_pretrained(name)
