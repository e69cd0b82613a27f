"""Every form of a network, of every family, survives every way of storing it; and what a file of it decides."""

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import routekit
from routekit.baselines import pruning
from routekit.errors import InputError
from routekit.formats.checkpoint import SPEC, TENSORS, load, read_about, save_network
from routekit.formats.compact import compact
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.runtime.load import load_runtime
from tests.formats.every_form import FAMILIES, FORMS, SMALL, fresh_view, made
from tests.toy import toy_view

ABOUT = {"classes": ["red", "green", "blue"]}
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
