"""`convert`: a pretrained network in, the same network with routers out, exact until it is trained."""

import torch
from torch import Tensor, nn

from routekit.backbones.adapters import adapt
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.errors import InputError
from routekit.network.network import RoutedNetwork
from routekit.routing.router import FixedRoute, JunctionShape, RouterConfig, build_bank


def convert(
    model: nn.Module | Backbone,
    config: RouterConfig | FixedRoute | None = None,
    *,
    spec: ModelSpec | None = None,
) -> RoutedNetwork:
    """Give every skippable unit of `model` a router.

    The routers start fully open, so in eval mode the network's logits equal the model's bit for bit. `config` is a
    RouterConfig for learned routers (default: the paper's), or a FixedRoute, the same route for every image.
    A bare module needs `spec` (its input size and classes). Raises InputError for a model that no adapter knows.
    """
    view = model if isinstance(model, Backbone) else _adapted(model, spec)
    if not any(unit.skippable for unit in view.units):
        raise InputError(f"{view.spec.full_name} has no unit that can be skipped")
    bank = config if isinstance(config, FixedRoute) else build_bank(junction_shapes(view), config or RouterConfig())
    # A learned bank is new; the device is the model's, wherever that is.
    device = next(view.model.parameters()).device
    return RoutedNetwork(view, bank.to(device))


def dense(model: nn.Module | Backbone, *, spec: ModelSpec | None = None) -> RoutedNetwork:
    """The network itself, as a routed one whose only route runs everything."""
    view = model if isinstance(model, Backbone) else _adapted(model, spec)
    return convert(view, FixedRoute([True] * sum(unit.skippable for unit in view.units)))


def _adapted(model: nn.Module, spec: ModelSpec | None) -> Backbone:
    if spec is None:
        raise InputError("convert(model) needs spec=ModelSpec(...): the input size and the number of classes")
    return adapt(model, spec)


@torch.no_grad()
def example_input(view: Backbone) -> Tensor:
    """One blank image [1, C, H, W], on the model's device and in its dtype."""
    parameter = next(view.model.parameters())
    return torch.zeros(1, *view.spec.input_size, device=parameter.device, dtype=parameter.dtype)


@torch.no_grad()
def junction_shapes(view: Backbone) -> list[JunctionShape]:
    """Run one blank image through the network to see what each junction's router will see."""
    was_training = view.model.training
    view.model.eval()
    x = view.stem(example_input(view))
    shapes = []
    for unit in view.units:
        if unit.skippable:
            shapes.append(JunctionShape(channels=x.shape[1], stage=unit.stage))
        x = unit.run(x)
    view.model.train(was_training)
    return shapes
