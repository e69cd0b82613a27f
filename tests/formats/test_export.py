import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import routekit
from routekit.backbones.adapters import register_adapter
from routekit.backbones.load import build, spec_of
from routekit.baselines.depth import static_depth
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig, banks
from tests.toy import open_to_images


def routed(name: str, kind: str = "fc", size: int = 32) -> RoutedNetwork:
    torch.manual_seed(0)
    view = build(spec_of(name, num_classes=5, input_size=(3, size, size)))
    for module in view.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    network = convert(view, [Skip()], routers=RouterConfig(kind=kind)).eval()
    open_to_images(network)
    # Let the routers' batch norms see images, or the features' common constant decides alike for all.
    network.routers.train()
    for module in network.routers.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(5):
            network(images(32, size))
    return network.eval()


def images(count: int = 12, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    contrast = 3 * torch.rand(count, 1, 1, 1, generator=generator)
    return contrast * torch.randn(count, 3, size, size, generator=generator)


@pytest.mark.parametrize("kind", sorted(banks))
def test_a_network_survives_the_disk_bit_for_bit(tmp_path: Path, kind: str) -> None:
    network = routed("resnet20", kind)
    network.routers.bias.fill_(0.25)
    save_network(tmp_path, network, about={"classes": list("abcde")})
    again = routekit.load(tmp_path)
    with torch.no_grad():
        want, got = network(images()), again(images())
    assert torch.equal(want.logits, got.logits)
    assert torch.equal(want.routes, got.routes)
    assert want.routes.unique(dim=0).shape[0] > 1
    assert json.loads((tmp_path / "network.json").read_text())["about"]["classes"] == list("abcde")


def test_a_static_depth_survives_the_disk(tmp_path: Path) -> None:
    view = build(spec_of("resnet20"))
    left = static_depth("distributedk", view, 0.5 * CostTable.measure(convert(view)).dense, 0)
    network = convert(left).eval()
    save_network(tmp_path, network, about={})
    again = load(tmp_path)
    assert [unit.dropped for unit in again.view.units] == [unit.dropped for unit in left.units]
    assert 0 < sum(unit.dropped for unit in again.view.units) < 9
    assert torch.equal(again(images()).logits, network(images()).logits)


@pytest.mark.parametrize("name", ["resnet20", "timm:resnet18d", "timm:resnetv2_18", "torchvision:resnet50"])
def test_the_compact_form_takes_the_same_routes_to_the_same_logits(tmp_path: Path, name: str) -> None:
    size = 32 if name == "resnet20" else 64
    network = routed(name, size=size)
    with torch.no_grad():
        want = network(images(size=size))
    small = compact(network, want.routes)
    rates = [
        (unit.name, float(rate)) for unit, rate in zip(network.junctions, want.routes.double().mean(0), strict=True)
    ]
    assert small.dropped == [name for name, rate in rates if rate == 0]
    assert small.settled == [name for name, rate in rates if rate == 1]
    assert len(small.folded) > 0
    save_network(tmp_path, small.network, about={})
    with torch.no_grad():
        got = load(tmp_path)(images(size=size))
    undecided = want.routes.any(0) & ~want.routes.all(0)
    assert torch.equal(got.routes, want.routes[:, undecided])
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-3, atol=1e-3)


def test_dropped_units_leave_the_file_and_the_cost(tmp_path: Path) -> None:
    network = routed("resnet20")
    routes = torch.ones(4, 9, dtype=torch.bool)
    routes[:, [1, 3, 4]] = False  # units 3 and 6 are the down-sampling ones
    routes[0] = False  # of the others, none is settled
    before = CostTable.measure(network)
    small = compact(network, routes)
    assert small.dropped == ["layer1.1", "layer2.0", "layer2.1"]
    save_network(tmp_path, small.network, about={})
    names = set(load_file(tmp_path / "network.safetensors"))
    assert not any(
        name.startswith(("backbone.layer1.1.", "backbone.layer2.0.", "backbone.layer2.1.")) for name in names
    )
    assert not any(".bn" in name for name in names)
    after = CostTable.measure(load(tmp_path))
    assert len(after.extra) == 6
    assert after.dense < before.dense


def test_down_sampling_units_keep_what_their_shortcut_needs() -> None:
    network = routed("torchvision:resnet18", size=64)
    routes = torch.zeros(2, 8, dtype=torch.bool)
    want = network(images(2, 64), routes=routes).logits
    small = compact(network, routes)
    assert len(small.dropped) == 8
    assert small.network.is_static  # nothing is decided any more, and nobody is asked
    torch.testing.assert_close(small.network(images(2, 64)).logits, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [False, True])
def test_what_is_left_can_be_loaded_however_alike_the_routes_are(tmp_path: Path, rate: bool) -> None:
    small = compact(routed("resnet20"), torch.full((4, 9), rate))
    save_network(tmp_path, small.network, about={})
    again = load(tmp_path)
    with torch.no_grad():
        want, got = small.network(images()), again(images())
    assert torch.equal(got.logits, want.logits)
    assert torch.equal(routekit.optimize(again)(images()).routes, want.routes)
    save_network(tmp_path / "again", again, about={})  # as `evaluate --keep` does
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "again")(images()).logits, want.logits)


def test_routers_are_saved_as_they_were_built(tmp_path: Path) -> None:
    network = convert(
        build(spec_of("resnet20")), [Skip()], routers=RouterConfig(hidden=5, open_logit=0.7, detach=False)
    )
    save_network(tmp_path, network, about={})
    again = load(tmp_path)
    assert again.routers.config == network.routers.config
    assert again.routers.routers[0][1].out_features == 5


def test_compacting_leaves_the_network_alone() -> None:
    network = routed("resnet20")
    with torch.no_grad():
        want = network(images()).logits
        compact(network, torch.zeros(1, 9, dtype=torch.bool))
        assert torch.equal(network(images()).logits, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    network = routed("resnet20")
    save_network(tmp_path / "full", network, about={})
    save_network(tmp_path / "half", network, about={}, dtype=dtype)
    sizes = [(tmp_path / name / "network.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = load(tmp_path / "half")
    assert next(again.parameters()).dtype == torch.float32
    everything = torch.ones(12, 9, dtype=torch.bool)
    with torch.no_grad():
        got, want = again(images(), routes=everything).logits, network(images(), routes=everything).logits
    assert (got - want).abs().max() < 0.05 * want.abs().max()


@pytest.mark.parametrize("rule", ["confidence", "learned"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_what_decides_alone(tmp_path: Path, dtype: torch.dtype, rule: str) -> None:
    """A threshold next to 1 would be 1 in half precision, and every image would go on."""
    torch.manual_seed(0)
    network = convert(build(spec_of("resnet20")), [Exit(rule=rule)])
    network.set_bias(torch.full_like(network.bias, 0.9997))
    save_network(tmp_path, network, about={}, dtype=dtype)
    again = load(tmp_path)
    assert torch.equal(again.bias, network.bias)
    assert all(map(torch.equal, again.routing_parameters(), network.routing_parameters()))
    assert all(map(torch.equal, again.buffers(), network.buffers()))
    assert not torch.equal(again.backbone.conv1.weight, network.backbone.conv1.weight)


def test_a_users_own_network_is_loaded_into_an_instance_of_it(tmp_path: Path) -> None:
    from tests.toy import ToyNet, toy_view

    class OwnNet(ToyNet): ...

    @register_adapter(OwnNet)
    def adapt_own(model, spec):  # type: ignore[no-untyped-def]
        view = toy_view()
        for unit, block in zip(view.units, model.body, strict=True):
            unit.block, unit.shortcut = block, None if block.downsample is None else block.skip
        view.model, view.stem, view.head, view.spec = model, model.stem, model.head, spec
        return view

    model = OwnNet().eval()
    network = routekit.convert(model, [Skip()], spec=toy_view().spec).eval()
    open_to_images(network)
    save_network(tmp_path, network, about={})
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(routekit.load(tmp_path, model=OwnNet())(x).logits, network(x).logits)
    with pytest.raises(InputError, match="model="):
        routekit.load(tmp_path)


def _damage(folder: Path, what: str) -> None:
    spec = folder / "network.json"
    if what == "no spec":
        spec.unlink()
    elif what == "no json":
        spec.write_text("{")
    elif what == "foreign":
        spec.write_text("[]")
    elif what == "version":
        spec.write_text(spec.read_text().replace('"version": 3', '"version": 2'))
    elif what == "no tensors":
        (folder / "network.safetensors").unlink()
    elif what == "torn tensors":
        data = (folder / "network.safetensors").read_bytes()
        (folder / "network.safetensors").write_bytes(data[: len(data) // 2])
    elif what == "other tensors":
        spec.write_text(spec.read_text().replace("resnet20", "resnet32"))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no spec", "holds no routed network"),
        ("no json", "is damaged"),
        ("foreign", "is no routekit network"),
        ("version", "of version 2, by routekit .*; this one reads version 3"),
        ("no tensors", "is missing"),
        ("torn tensors", "is damaged"),
        ("other tensors", "is damaged"),
    ],
)
def test_damage_is_one_clear_error(tmp_path: Path, what: str, says: str) -> None:
    save_network(tmp_path, routed("resnet20"), about={})
    _damage(tmp_path, what)
    known = ("no spec", "no tensors", "version")  # without a look at digests
    with pytest.raises(InputError, match=says if what in known else "is not as routekit wrote it"):
        load(tmp_path)
    with pytest.raises(InputError, match=says):
        load(tmp_path, verify=False)


def test_evaluation_of_a_loaded_network_runs(tmp_path: Path) -> None:
    from routekit.data.image_set import ImageSet

    network = routed("resnet20")
    save_network(tmp_path, network, about={})
    data = ImageSet(
        torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(10) % 5,
        tuple("abcde"),
    )
    again = load(tmp_path)
    want, got = (evaluate(net, data, CostTable.measure(net)) for net in (network, again))
    assert torch.equal(want.routes, got.routes)
