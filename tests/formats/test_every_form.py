"""Every form of a network, of every family, survives every way of storing it; and what a file of it decides."""

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import pytest
import torch
from torch import Tensor, nn

import routekit
from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.baselines import pruning
from routekit.baselines.depth import orders, static_depth
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import SPEC, TENSORS, load, read_about, save_network
from routekit.formats.compact import compact
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
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
from routekit.runtime.load import load_runtime
from tests.toy import small_view, toy_view

FAMILIES = {"cifar": "", "own": "", "torchvision": "torchvision:resnet18", "timm": "timm:resnet10t"}
ABOUT = {"classes": ["red", "green", "blue"]}

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
STORES = ("plain", "compact", "float16", "compact float16")


def combinations() -> list[tuple[str, str, str]]:
    """Each form of each family, and of the first in all ways of storing it; of the others, each way several times."""
    found = []
    for place, form in enumerate(FORMS):
        for number, family in enumerate(FAMILIES):
            if (form == "tree" and family != "cifar") or (form in SMALL and FAMILIES[family]):
                continue
            stores = STORES if family == "cifar" else [STORES[(place + number) % len(STORES)]]
            found += [(family, form, store) for store in stores]
    return found


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


def loaded(folder: Path, family: str, form: str) -> RoutedNetwork:
    if family != "own":
        return load(folder)
    views = [fresh_view(family, form) for _ in range(2 if form.startswith("join") else 1)]
    for view in views:
        for tensor in view.model.state_dict().values():
            tensor.zero_()
    return load(folder, model=views if len(views) > 1 else views[0])


def rounded(network: RoutedNetwork) -> RoutedNetwork:
    network = copy.deepcopy(network)
    for parameter in network.computing_parameters():
        parameter.data = parameter.data.half().float()
    return network


def parameters(network: RoutedNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("family", "form", "store"), combinations())
def test_every_form_survives_the_disk(tmp_path: Path, family: str, form: str, store: str) -> None:
    network, images = made(family, form)
    with torch.no_grad():
        check_stored(tmp_path, network, images, family, form, store)


def check_stored(folder: Path, network: RoutedNetwork, images: Tensor, family: str, form: str, store: str) -> None:
    want = network(images)
    if not network.is_static:
        assert len(want.routes.unique(dim=0)) > 1
    stored, dtype = network, torch.float16 if store.endswith("float16") else None
    if store.startswith("compact"):
        stored = compact(network, want.routes).network
        assert parameters(stored) <= parameters(network)
        assert len(stored.columns) <= len(network.columns)
    expected = (rounded(stored) if dtype else stored)(images)
    save_network(folder / "one", stored, about=ABOUT, dtype=dtype)
    again = loaded(folder / "one", family, form)
    got = again(images)
    # What was stored is what is loaded, bit for bit.
    assert again.columns == stored.columns
    assert again.layout == stored.layout
    assert torch.equal(again.bias, stored.bias)
    assert torch.equal(got.routes, expected.routes)
    assert torch.equal(got.logits, expected.logits)
    assert (again.pricing is None) == (network.pricing is None)
    # It is the network, as far as folding and 16 bits allow.
    assert torch.equal(got.routes, want.routes[:, [network.columns.index(name) for name in again.columns]])
    assert torch.equal(got.logits.argmax(dim=1), want.logits.argmax(dim=1))
    tolerance = 2e-2 * float(want.logits.abs().max()) if dtype else 1e-4
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=tolerance)
    # And it can be stored again.
    assert read_about(folder / "one") == ABOUT
    save_network(folder / "two", again, about=ABOUT, dtype=dtype)
    for name in (SPEC, TENSORS):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
    if not FAMILIES[family] and store == "plain":
        fast = routekit.optimize(again)(images)
        assert torch.equal(fast.routes, got.routes)
        torch.testing.assert_close(fast.logits, got.logits, rtol=1e-4, atol=1e-4)


def test_of_joined_networks_each_is_loaded_into_a_model_of_its_own(tmp_path: Path) -> None:
    network, _ = made("own", "join")
    save_network(tmp_path, network, about={})
    with pytest.raises(InputError, match=r"holds 2 networks, model= 1: give a list"):
        load(tmp_path, model=toy_view())


def test_every_pair_is_covered() -> None:
    found: list[dict[str, Any]] = [dict(zip(("family", "form", "store"), each, strict=True)) for each in combinations()]
    assert {(each["form"], each["store"]) for each in found} == {(form, store) for form in FORMS for store in STORES}
    assert {(each["family"], each["store"]) for each in found} == {(fam, store) for fam in FAMILIES for store in STORES}
    assert {(each["family"], each["form"]) for each in found} >= {
        (family, form) for family in FAMILIES for form in FORMS.keys() - SMALL.keys()
    }


@pytest.mark.parametrize("form", ["branch", "cascade, own", "l1"])
def test_what_a_users_own_blocks_cannot_be_is_said(form: str) -> None:
    before, junctions = FORMS[form]
    with pytest.raises(InputError, match="ToyBlock has no narrow form"):
        convert(pruning.prune(toy_view(), before, 2e4) if before else toy_view(), junctions)


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("cifar", "depgraph, skip"),
        ("cifar", "skip, exit, priced"),
        ("cifar", "join, average"),
        ("cifar", "firstk, skip"),
        ("cifar", "cascade, own, again"),
    ],
)
def test_a_file_decides_as_the_network_does(tmp_path: Path, family: str, form: str, exporter: Exporter) -> None:
    network, images = made(family, form)
    save_onnx(tmp_path, network, ABOUT, exporter)
    check_file(tmp_path, network, images)


@pytest.mark.parametrize(("family", "form"), [("cifar", "dense"), ("cifar", "firstk"), ("timm", "l1")])
def test_a_network_that_decides_nothing_is_a_graph_without_branches(
    tmp_path: Path, family: str, form: str, exporter: Exporter
) -> None:
    network, images = made(family, form)
    for file in save_onnx(tmp_path, network, ABOUT, exporter):
        assert not any(node.op_type == "If" for node in onnx.load(file).graph.node)
    check_file(tmp_path, network, images)


def check_file(folder: Path, network: RoutedNetwork, images: Tensor) -> None:
    runtime = load_runtime(folder)
    with torch.no_grad():
        want = network(images)
    for count in (len(images), 1):
        got = torch.split(images, count)
        answers = [runtime(part) for part in got]
        assert torch.equal(torch.cat([each.routes for each in answers]), want.routes)
        logits = torch.cat([each.logits for each in answers])
        torch.testing.assert_close(logits, want.logits, rtol=1e-4, atol=1e-4)
