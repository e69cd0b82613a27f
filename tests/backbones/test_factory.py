"""A user's own network, by the name of what makes it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from routekit.backbones.factory import is_factory
from routekit.backbones.load import build, has_published_weights, load_backbone, resolve, spec_of
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.errors import InputError

# A network of blocks that keep their shape; its classifier is a convolution, so that no linear layer is found.
OWN = """
import torch
from torch import nn
import routekit

CALLS = []

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + torch.tanh(self.conv(x))

class Own(nn.Module):
    def __init__(self, num_classes=3, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        return self.classifier(self.down(self.blocks(self.stem(x)))).mean((2, 3))

def marked(num_classes=3, blocks=("blocks.0", "blocks.1")):
    CALLS.append(num_classes)
    return routekit.mark_units(Own(num_classes), blocks, routekit.ModelSpec("custom", "own", num_classes, (3, 8, 8)))
"""

GREY = """
from beside import Own, routekit

def make(num_classes: int):
    spec = routekit.ModelSpec(
        "custom", "grey", 5, (1, 28, 28), mean=(0.1307,), std=(0.3081,), crop=0.9, interpolation="bicubic"
    )
    from later import names
    return routekit.mark_units(Own(num_classes, channels=1), names, spec)

def plain():
    spec = routekit.ModelSpec("custom", "grey", 3, (1, 28, 28))
    return routekit.mark_units(Own(channels=1), ["blocks.0"], spec)

def odd():
    spec = routekit.ModelSpec("custom", "grey", 3, (1, 28, 28), mean=(0.1, 0.2, 0.3), std=(0.5,))
    return routekit.mark_units(Own(channels=1), ["blocks.0"], spec)
"""

RESNET = """
from torchvision.models import resnet18

def small(num_classes=10):
    return resnet18(num_classes=num_classes)

def ten():
    return resnet18(num_classes=10)

def passes_on(**options):
    return resnet18(**options)
"""


def through(view: Backbone, x: torch.Tensor) -> torch.Tensor:
    x = view.stem(x)
    for unit in view.units:
        x = unit.run(x)
    return view.head(x)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("my_model.py:make_net", True),
        ("path/to/net.py:Net", True),
        ("/path/to/net.py:Net", True),
        ("custom:/path/to/net.py:Net", True),
        ("package.module:make_net", True),
        ("custom:package.module:make_net", True),
        ("my_model.py:", True),
        ("resnet56", False),
        ("timm:resnet50.a1_in1k", False),
        ("torchvision:resnet18", False),
        ("timm.models.resnet:resnet18", False),
        ("tmm:resnet50", False),
        ("my_model.py", False),
        ("https://example.com:net", False),
        ("a.b c:net", False),
    ],
)
def test_which_names_are_factories(name: str, is_one: bool) -> None:
    assert is_factory(name) is is_one


def test_a_marked_network_from_a_file(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(OWN)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    spec = spec_of("my_model.py:marked")
    assert spec == ModelSpec("custom", f"{path}:marked", 3, (3, 8, 8))
    assert resolve("my_model.py:marked") == resolve(spec.full_name) == ("custom", f"{path}:marked")
    assert spec.full_name == f"custom:{path}:marked"
    assert spec_of(spec.full_name) == spec
    assert not has_published_weights("my_model.py:marked")
    view = load_backbone("my_model.py:marked", num_classes=7, input_size=(3, 16, 12))
    assert (view.spec.num_classes, view.spec.input_size, view.notes) == (7, (3, 16, 12), [])
    assert [unit.name for unit in view.units] == ["blocks.0", "blocks.1"]
    x = torch.randn(2, 3, 16, 12)
    with torch.no_grad():
        assert torch.equal(through(view, x), view.model(x))
        assert view.model(x).shape == (2, 7)
    assert sys.path == before


def test_a_specification_is_found_once_and_draws_nothing(write: Callable[..., str]) -> None:
    path = write(OWN)
    before = torch.get_rng_state()
    spec_of(f"{path}:marked", 5)
    assert torch.equal(torch.get_rng_state(), before)
    spec_of(f"{path}:marked", 5)
    module = sys.modules[type(load_backbone(f"{path}:marked", spec=spec_of(f"{path}:marked", 5)).model).__module__]
    assert module.CALLS == [5, 5]  # for the specification, and for the network
    # Another text is another factory, at once.
    write(OWN.replace("num_classes=3", "num_classes=4"))
    assert spec_of(f"{path}:marked").num_classes == 4


def test_a_callers_specification_is_taken_as_it_is(write: Callable[..., str]) -> None:
    name = f"{write(OWN)}:marked"
    spec = ModelSpec("custom", name, 6, (3, 16, 16), mean=(0.5,), std=(0.25,), crop=0.5)
    assert load_backbone(name, spec=spec).spec == spec
    assert build(spec).spec == spec
    spec = ModelSpec("cifar", "resnet20", 6, (3, 16, 16), mean=(0.5,), std=(0.25,))
    assert load_backbone("resnet20", weights="none", spec=spec).spec == spec


@pytest.mark.parametrize("what", ["small", "passes_on"])
def test_a_resnet_of_torchvision_with_as_many_classes(write: Callable[..., str], what: str) -> None:
    name = f"{write(RESNET)}:{what}"
    assert spec_of(name, 4) == ModelSpec("custom", name, 4, (3, 32, 32))
    assert spec_of(name).num_classes == (10 if what == "small" else 1000)
    view = load_backbone(name, num_classes=4, input_size=(3, 64, 64))
    assert (view.classifier, view.spec.input_size, len(view.units)) == ("fc", (3, 64, 64), 8)
    assert view.model.fc.out_features == 4


def test_a_grey_network_says_how_its_images_are_read(write: Callable[..., str]) -> None:
    write(OWN, "beside.py")
    write("names = ['blocks.0']", "later.py")
    name = f"{write(GREY)}:make"
    spec = spec_of(name, 5)
    assert spec == ModelSpec("custom", name, 5, (1, 28, 28), (0.1307,), (0.3081,), crop=0.9, interpolation="bicubic")
    # The channels are the network's, whatever size is asked for.
    assert spec_of(name, 5, (3, 20, 20)).input_size == (1, 20, 20)
    assert build(spec).model(torch.zeros(2, 1, 28, 28)).shape == (2, 5)
    # It has to be told how many classes there are, though nobody knows yet.
    assert spec_of(name).num_classes == 10
    with pytest.raises(InputError, match=r"my_model\.py:make takes images of 1 channels, not 3"):
        build(ModelSpec("custom", name, 5, (3, 28, 28)))
    plain = spec_of(name.replace(":make", ":plain"))
    assert (plain.mean, plain.std) == (pytest.approx((0.449,)), pytest.approx((0.226,)))
    with pytest.raises(InputError, match="has 3 values of mean for images of 1 channels"):
        spec_of(name.replace(":make", ":odd"))


def test_a_factory_in_a_package(write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("", "own_package_of_a_test/__init__.py")
    write(OWN, "own_package_of_a_test/nets.py")
    monkeypatch.chdir(tmp_path)
    name = "own_package_of_a_test.nets:marked"
    assert spec_of(name, 4) == ModelSpec("custom", name, 4, (3, 8, 8))
    assert build(spec_of(f"custom:{name}")).model.classifier.out_channels == 3


def test_weights_of_a_file_are_loaded_by_name(write: Callable[..., str], tmp_path: Path) -> None:
    name = f"{write(OWN)}:marked"
    view = load_backbone(name)
    assert view.classifier == ""
    torch.save(view.model.state_dict(), tmp_path / "own.pt")
    torch.manual_seed(1)
    again = load_backbone(name, weights=str(tmp_path / "own.pt"))
    assert again.notes == []
    assert torch.equal(again.model.classifier.weight, view.model.classifier.weight)
    with pytest.raises(InputError, match=r"own\.pt is no checkpoint of this network: tensors 2 of another shape"):
        load_backbone(name, weights=str(tmp_path / "own.pt"), num_classes=4)
    resnet = f"{write(RESNET, 'resnets.py')}:small"
    torch.save(load_backbone(resnet).model.state_dict(), tmp_path / "resnet.pt")
    view = load_backbone(resnet, weights=str(tmp_path / "resnet.pt"), num_classes=4)
    assert view.notes == ["the classifier of resnet.pt (10 classes) was replaced by a new one with 4"]


def test_what_a_factory_loads_itself_counts(write: Callable[..., str]) -> None:
    name = f"{write(OWN + FILLED)}:filled"
    for weights in ("auto", "none"):
        assert (load_backbone(name, weights=weights).model.stem.weight == 0.5).all()


FILLED = """
def filled():
    view = marked()
    nn.init.constant_(view.model.stem.weight, 0.5)
    return view
"""
