import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from routekit.backbones.adapters import adapt, register_adapter
from routekit.backbones.catalog import list_models
from routekit.backbones.load import build, has_published_weights, resolve, spec_of
from routekit.backbones.torchvision_resnet import ActivatedShortcut
from routekit.backbones.unit import ModelSpec
from routekit.errors import InputError
from tests.sweep_backbones import check, randomize
from tests.toy import TOY_SPEC, toy_view

# The smallest of each family; the recorded sweep in reports/ holds them all.
SAMPLE = [
    "resnet20",
    "torchvision:resnet18",
    "torchvision:resnext50_32x4d",
    "timm:resnet10t",
    "timm:resnet18d",
    "timm:seresnet18",
    "timm:skresnet18",
    "timm:ecaresnet26t",
    "timm:resnetblur18",
    "timm:res2net50_48w_2s",
    "timm:resnest14d",
    "timm:resnetv2_18",
    "timm:resnetv2_50",
]


@pytest.mark.parametrize("name", SAMPLE)
def test_open_gates_are_bit_exact(name: str) -> None:
    assert check(name, size=64) > 0


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_the_cifar_family_has_the_published_sizes(depth: int, parameters: int) -> None:
    view = build(spec_of(f"resnet{depth}"))
    assert sum(parameter.numel() for parameter in view.model.parameters()) == parameters
    assert len(view.units) == (depth - 2) // 2
    assert [unit.shortcut is None for unit in view.units].count(False) == 2


def test_the_cifar_family_has_the_published_names() -> None:
    names = set(build(spec_of("resnet20")).model.state_dict())
    for name in ("conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"):
        assert name in names
    assert not any("shortcut" in name for name in names)


def test_option_a_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    unit = build(spec_of("resnet20")).units[3]
    x = torch.arange(16 * 4 * 4, dtype=torch.float32).view(1, 16, 4, 4)
    y = unit.skip(x)
    assert y.shape == (1, 32, 2, 2)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_drop_path_trains_and_is_off_in_eval() -> None:
    import timm

    spec = spec_of("timm:resnet18", num_classes=10, input_size=(3, 64, 64))
    view = adapt(timm.create_model("resnet18", num_classes=10, drop_path_rate=0.5), spec)
    randomize(view.model)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    view.model.eval()
    with torch.no_grad():
        y = view.stem(x)
        for unit in view.units:
            y = unit.run(y)
        assert torch.equal(view.head(y), view.model(x))
    view.model.train()
    torch.manual_seed(0)
    features = torch.randn(8, 512, 2, 2, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(view.units[-1].run(features), view.units[-1].run(features))


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("resnet56", ("cifar", "resnet56")),
        ("cifar:resnet56", ("cifar", "resnet56")),
        ("resnet50", ("timm", "resnet50")),
        ("torchvision:resnet50", ("torchvision", "resnet50")),
        ("timm:resnet50.a1_in1k", ("timm", "resnet50.a1_in1k")),
    ],
)
def test_names_resolve_cifar_first_then_timm_then_torchvision(name: str, resolved: tuple[str, str]) -> None:
    assert resolve(name) == resolved


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet65", "did you mean resnet56"),
        ("timm:resnt50", "did you mean timm:resnet50"),
        ("keras:resnet50", "unknown source 'keras'"),
        ("timm:resnet50.a1_in2k", "timm has no weights 'a1_in2k' for resnet50: did you mean resnet50.a1"),
        ("timm:vit_base_patch16_224", "is no ResNet that routekit knows"),
        ("", "unknown model"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        resolve(name)


def test_a_cifar_name_imports_neither_library() -> None:
    code = (
        "import sys; from routekit.backbones.load import spec_of; spec_of('resnet56'); "
        "print({'timm', 'torchvision'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_skip_never_changes_the_features_it_was_given() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.downsample = nn.Identity()
            self.act = nn.ReLU(inplace=True)

    x = -torch.ones(1, 2, 2, 2)
    assert not ActivatedShortcut(Block(), "act")(x).any()
    assert torch.equal(x, -torch.ones(1, 2, 2, 2))


def test_specs_come_from_their_sources() -> None:
    assert spec_of("resnet56").input_size == (3, 32, 32)
    assert spec_of("timm:resnetv2_50").mean == (0.5, 0.5, 0.5)
    assert spec_of("torchvision:resnet18", num_classes=7, input_size=(3, 96, 96)).num_classes == 7
    assert not has_published_weights("resnet74")
    assert has_published_weights("resnet56")


def test_the_catalog_names_every_source_and_resolves() -> None:
    entries = list_models()
    assert len(entries) == len({(entry.source, entry.name) for entry in entries})
    assert {entry.source for entry in entries} == {"cifar", "timm", "torchvision"}
    for entry in entries:
        assert resolve(f"{entry.source}:{entry.name}") == (entry.source, entry.name)
    families = {entry.name for entry in entries}
    assert {"wide_resnet50_2", "resnext50_32x4d", "seresnet50", "ecaresnet50t", "skresnet18", "resnetv2_50"} <= families


def test_an_adapter_serves_subclasses_and_a_missing_one_says_how_to_go_on() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Child(Own): ...

    with pytest.raises(InputError, match=r"register_adapter.*mark_units"):
        adapt(Child(), TOY_SPEC)

    @register_adapter(Own)
    def adapt_own(model: nn.Module, spec: ModelSpec):  # type: ignore[no-untyped-def]
        view = toy_view()
        view.model, view.spec = model, spec
        return view

    child = Child()
    assert adapt(child, TOY_SPEC).model is child


@pytest.mark.parametrize("name", ["resnet20", "timm:resnet10t", "timm:resnetv2_18", "torchvision:resnet18"])
def test_a_copied_view_computes_with_its_own_copy(name: str) -> None:
    view = build(spec_of(name, num_classes=4, input_size=(3, 64, 64)))
    twin = copy.deepcopy(view)
    for parameter in view.model.parameters():
        parameter.data.zero_()
    theirs = {id(parameter) for parameter in twin.model.parameters()}
    for unit in twin.units:
        assert {id(parameter) for parameter in unit.block.parameters()} <= theirs
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = twin.model.eval()(x)
        z = twin.stem(x)
        for unit in twin.units:
            z = unit.run(z)
        assert torch.equal(twin.head(z), y)
        down = next(unit for unit in twin.units if unit.shortcut is not None)
        if name != "resnet20":
            assert next(down.block.downsample.parameters()).abs().sum() > 0
    assert y.abs().sum() > 0
