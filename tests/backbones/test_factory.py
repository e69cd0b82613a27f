"""A user's own network, by the name of what makes it."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from routekit.backbones.factory import is_factory, make
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


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a file, and say where it is."""

    def written(text: str, name: str = "my_model.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return written


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

FAULTY = """
from torch import nn
import routekit
from torchvision.models import resnet18
from routekit.errors import InputError

answer = 42
built = nn.Linear(3, 3)

def raises():
    raise KeyError("no weights\\nand much more")

def leaves():
    raise SystemExit("usage: my_model")

def refuses():
    raise InputError("fetch the weights first")

def needs(width):
    return nn.Linear(width, width)

def gives_a_dict():
    return {}

def gives_nothing():
    pass

def ten():
    return resnet18(num_classes=10)

def large():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 10))

def features():
    return nn.Conv2d(3, 8, 3)

class Pair(nn.Module):
    def forward(self, x):
        return x, x

def unknown():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

def changing():
    model = resnet18(num_classes=10)
    return routekit.mark_units(model, ["layer2.0"], routekit.ModelSpec("custom", "own", 10, (3, 32, 32)))
"""


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("raise", r"^my_model\.py has no 'raise': did you mean raises or refuses\?"),
        ("", r"^my_model\.py has no ''"),
        ("answer", r"^my_model\.py:answer is of type int: name a function or a class that makes the network"),
        ("built", r"^my_model\.py:built is a network already: name a function"),
        ("raises", r"^my_model\.py:raises made no network \(KeyError: 'no weights.*\): repair it"),
        ("leaves", r"^my_model\.py:leaves made no network \(SystemExit: usage: my_model\)"),
        ("refuses", r"^fetch the weights first$"),
        ("needs", r"^my_model\.py:needs made no network \(TypeError: .*'width'\)"),
        (
            "gives_a_dict",
            r"^my_model\.py:gives_a_dict gave a dict: it has to return an nn\.Module, or what routekit\.mark_units ",
        ),
        ("gives_nothing", r"^my_model\.py:gives_nothing gave None: it has to return"),
        ("ten", r"^my_model\.py:ten gives a network of 10 classes, not 4: let it take num_classes="),
        (
            "large",
            r"^the network of my_model\.py:large takes no images of \[3, 32, 32\] \(Runt.*give another input size",
        ),
        ("features", r"^the network of my_model\.py:features makes \[1, 8, 30, 30\] of one image: .*\[1, classes\]$"),
        ("Pair", r"^the network of my_model\.py:Pair makes a tuple of one image"),
        ("changing", r"^block 'layer2\.0' changes the shape"),
    ],
)
def test_what_a_factory_does_wrong_is_one_line(write: Callable[..., str], what: str, says: str) -> None:
    name = f"{write(FAULTY)}:{what}"
    before = list(sys.path)
    for act in (spec_of, load_backbone):
        with pytest.raises(InputError, match=says) as caught:
            act(name, num_classes=4)
        assert "\n" not in str(caught.value)
    assert sys.path == before


def test_a_network_that_no_adapter_knows_says_what_to_do(write: Callable[..., str]) -> None:
    name = f"{write(FAULTY)}:unknown"
    assert spec_of(name).num_classes == 10
    with pytest.raises(InputError, match=r"no adapter knows Sequential: register one .*mark_units"):
        load_backbone(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "import no_such_thing_at_all",
            r"^my_model\.py cannot be imported \(ModuleNotFoundError: No module named 'no_",
        ),
        ("def make(:", r"^my_model\.py cannot be imported \(SyntaxError: "),
        ("raise SystemExit(3)", r"^my_model\.py cannot be imported \(SystemExit: 3\)"),
        ("import routekit\nraise routekit.RoutekitError('no room')", r"^no room$"),
        ("x = 1", r"^my_model\.py has no 'make': there is nothing in it to call$"),
    ],
)
def test_a_file_that_cannot_be_imported(write: Callable[..., str], text: str, says: str) -> None:
    path = write(text)
    modules = set(sys.modules)
    with pytest.raises(Exception, match=says) as caught:
        make(f"{path}:make")
    assert "\n" not in str(caught.value)
    assert text == "x = 1" or not any("routekit_factory" in name for name in set(sys.modules) - modules)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone/my_model.py:make", r"^there is no file gone/my_model\.py: give the one that makes the network"),
        ("gone.module:make", r"^gone\.module cannot be imported \(ModuleNotFoundError: No module named 'gone'\)"),
        ("xml.dom:nod", r"^xml\.dom has no 'nod': did you mean Node\?"),
        ("my_model.py", r"^my_model\.py is a file: say what in it makes the network, as in my_model\.py:make_net$"),
        ("my_model:make", r"^unknown source 'my_model': cifar, timm or torchvision, or .*as my_model\.py:make_net$"),
    ],
)
def test_a_name_of_nothing(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        spec_of(name)


def test_a_network_that_only_its_user_can_build() -> None:
    with pytest.raises(InputError, match=r"custom:own is your own network: give an instance of it as model="):
        build(ModelSpec("custom", "own", 3, (3, 8, 8)))


def test_the_published_networks_take_colours() -> None:
    with pytest.raises(InputError, match="resnet20 takes images of 3 channels, not 1"):
        spec_of("resnet20", input_size=(1, 32, 32))
