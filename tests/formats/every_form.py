"""Every form of a network, of every family, with decisions that differ between images."""

import copy
import functools
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor, nn

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.baselines import pruning
from routekit.baselines.depth import orders, static_depth
from routekit.cost.table import CostTable
from routekit.junctions.again import Again
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert, join
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.junctions.tree import Tree
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import PriceRange
from routekit.routing.router import RouterConfig
from tests.toy import small_view, toy_view

FAMILIES = {"cifar": "", "own": "", "torchvision": "torchvision:resnet18", "timm": "timm:resnet10t"}

EXIT, BY_RULE = Exit(count=2, width=8, hidden=8), Exit(count=1, head="linear", rule="entropy")
OWN, SHARED = Cascade(width=0.3), Cascade(width=(0.25, 0.5), depth=0.5, own=False)

# Of these forms, only small networks are stored.
SMALL: dict[str, tuple[str, list[Junction]]] = {
    "tree": ("", [Tree(), EXIT]),
    "candidate": ("", [Skip(), Branch(width=(), candidates=1)]),
    "exit, again": ("", [BY_RULE, Again()]),
    "skip, exit, priced": ("", [Skip(), EXIT]),
    "cascade, shared, again": ("", [SHARED, Again()]),
    "branch, cascade": ("", [Branch(width=(0.5,)), SHARED]),
    "depgraph, skip": ("depgraph", [Skip()]),
    "firstk, skip": ("firstk", [Skip()]),
    "firstk, candidate": ("firstk", [Branch(width=(), candidates=1)]),
    "firstk, exit": ("firstk", [BY_RULE]),
    "join, average": ("", []),
}
# By what the channels or units are reduced before, and what is decided.
FORMS: dict[str, tuple[str, list[Junction]]] = {
    "dense": ("", []),
    "l1": ("l1", []),
    "fpgm": ("fpgm", []),
    "bn": ("bn", []),
    "depgraph": ("depgraph", []),
    "random": ("random", []),
    "firstk": ("firstk", []),
    "skip": ("", [Skip()]),
    "branch": ("", [Branch(width=(0.5,))]),
    "exit": ("", [EXIT]),
    "skip, exit": ("", [Skip(), EXIT]),
    "cascade, own": ("", [OWN]),
    "cascade, shared": ("", [SHARED]),
    "cascade, own, again": ("", [OWN, Again()]),
    "l1, cascade": ("l1", [OWN]),
    "l1, skip": ("l1", [Skip()]),
    "join": ("", []),
}
FORMS |= SMALL
# A user's own blocks have no narrow form unless they are built as those of the libraries are.
NARROW = {form for form, (_, kinds) in FORMS.items() if any(each.kind in ("cascade", "tree") for each in kinds)}
NARROW |= {"branch", "join, average", *(form for form, (before, _) in FORMS.items() if before in pruning.prunings)}


def fresh_view(family: str, form: str) -> Backbone:
    """The architecture, with weights of which nothing is as it would be in a new one."""
    if FAMILIES[family]:
        return copy.deepcopy(_large_view(family))
    if family == "own" and form not in NARROW:
        return toy_view()
    view = small_view(depth=14 if form == "tree" else 8)
    return replace(view, spec=replace(view.spec, source="custom")) if family == "own" else view


@functools.cache
def _large_view(family: str) -> Backbone:
    torch.manual_seed(0)
    view = build(spec_of(FAMILIES[family], num_classes=3, input_size=(3, 32, 32)))
    _shake(view.model.eval())
    return view


def reduced(family: str, method: str) -> Backbone:
    """The architecture with fewer channels, or fewer units."""
    return copy.deepcopy(_reduced(family, method))


@functools.cache
def _reduced(family: str, method: str) -> Backbone:
    view = fresh_view(family, method)
    cost = 0.6 * CostTable.measure(convert(view)).dense
    if method in orders:
        return static_depth(method, view, cost, 0)
    with mock.patch.object(pruning, "HALVINGS", 2):  # how near the cost comes to what was asked does not matter here
        return pruning.prune(view, method, cost)


@functools.cache
def made(family: str, form: str) -> tuple[RoutedNetwork, Tensor]:
    """A network of a form whose decisions differ between images; and those images about which it is decided."""
    before, junctions = FORMS[form]
    view = reduced(family, before) if before else fresh_view(family, form)
    torch.manual_seed(1)
    routers, prices = RouterConfig(hidden=8), PriceRange() if "priced" in form else None
    if form.startswith("join"):
        first: list[Junction] = [OWN] if "average" in form else [BY_RULE]
        networks = [convert(view, first, routers=routers), convert(fresh_view(family, form), [Skip()], routers=routers)]
        average = "average" in form
        network = join(networks, rule="idk" if average else "confidence", average=average)
    else:
        network = convert(view, junctions, routers=routers, adaptive_cost=prices)
    images = torch.randn(48, *network.spec.input_size, generator=torch.Generator().manual_seed(0))
    _open(network.eval(), images)
    with torch.no_grad():
        reference = network(images, execution=masked)
    if network.is_static:
        return network, images[:8]
    margins = reference.margins.abs()
    decided = (margins > 0.02 * margins.mean(dim=0)).all(dim=1)  # rounding is to change none of it
    images = images[decided][:8]
    assert len(images) > 4
    return network, images


def _shake(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


@torch.no_grad()
def _open(network: RoutedNetwork, images: Tensor) -> None:
    """Give what decides weights, and thresholds in the middle of these images."""
    _shake(network)
    for parameter in network.routing_parameters():
        parameter.copy_(torch.randn(parameter.shape) * 2 / (parameter.shape[-1] if parameter.ndim else 1) ** 0.5)
    if network.pricing is not None:
        network.pricing.extra_cost.uniform_(0.01, 0.02)
        network.set_price((network.pricing.range.lowest * network.pricing.range.highest) ** 0.5)
    layout, bias = network.layout, network.bias.clone()
    units = [columns for columns, stops in zip(layout.junctions, layout.is_stop, strict=True) if not stops]
    extremes = {}
    if len(units) > 2 and not layout.forks:  # one unit that all images run in full, and one that nobody does
        extremes = {units[0].start: 1000.0} | dict.fromkeys(range(units[1].start, units[1].stop), -1000.0)
    for column in range(len(bias)):  # who runs one unit has other features at the next
        margins = network(images, execution=masked).margins[:, column]
        bias[column] = extremes.get(column, float(bias[column] - margins.median()))
        network.set_bias(bias)
