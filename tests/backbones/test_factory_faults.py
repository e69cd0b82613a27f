"""What can be wrong with a user's own network, in one line each."""

import sys
from collections.abc import Callable

import pytest

from routekit.backbones.factory import make
from routekit.backbones.load import build, load_backbone, spec_of
from routekit.backbones.unit import ModelSpec
from routekit.errors import InputError

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
