import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import routekit
from routekit.backbones.marked import mark_units
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.execution.prepare import optimize
from routekit.formats.checkpoint import save_network
from routekit.formats.compact import compact
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip

SPEC = ModelSpec("custom", "own", 3, (3, 8, 8))


class Mix(nn.Module):
    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.tanh(self.conv(x))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Sequential(Mix(4), Mix(4))
        self.down = nn.Conv2d(4, 8, 2, stride=2)
        self.second = nn.ModuleList([Mix(8), Mix(8)])
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.down(self.first(x))
        for block in self.second:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


NAMES = ["first.0", "first.1", "second.0", "second.1"]


def images() -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def through(view: Backbone, x: Tensor) -> Tensor:
    x = view.stem(x)
    for unit in view.units:
        x = unit.run(x)
    return view.head(x)


def test_marked_blocks_become_units_and_the_rest_always_runs() -> None:
    model = Own().eval()
    names = set(model.state_dict())
    view = mark_units(model, NAMES, SPEC)
    assert [(unit.name, unit.skippable, unit.stage) for unit in view.units] == [
        ("first.0", True, 0),
        ("first.1", True, 0),
        ("between.2", False, 1),
        ("second.0", True, 1),
        ("second.1", True, 1),
    ]
    assert view.units[0].block is model.first[0]
    assert set(model.state_dict()) == names
    network = convert(view, [Skip()]).eval()
    with torch.no_grad():
        assert torch.equal(network(images()).logits, model(images()))
        routes = torch.tensor([[True, False, False, True]]).expand(5, 4)
        y = model.second[1](model.down(model.first[0](torch.relu(model.stem(images())))))
        assert torch.equal(network(images(), routes=routes).logits, model.classifier(y.mean((2, 3))))


def test_a_marked_network_can_be_measured_copied_and_trained() -> None:
    network = convert(mark_units(Own(), NAMES, SPEC), [Skip()])
    costs = CostTable.measure(network)
    # Convolutions: stem 8*8*3*4*9, units 8*8*4*4*9 and 4*4*8*8*9, down 4*4*4*8*4.
    assert [part.cost for part in costs.parts if part.skippable] == [9216, 9216, 9216, 9216]
    assert costs.dense == 6912 + 4 * 9216 + 2048 + 24
    twin = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert twin(images()).logits.abs().sum() > 0
    twin(images()).logits.sum().backward()
    assert twin.backbone.down.weight.grad.abs().sum() > 0


class Normalising(Own):
    """Reads a buffer and a parameter itself, and has an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(1 / 3))
        self.scale = nn.Parameter(torch.tensor(1.7))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x if mask is None else x * mask
        x = self.first((torch.relu(self.stem(x)) - self.mean) * self.scale)
        return self.classifier((self.down(x) * self.scale).mean((2, 3)))


def test_what_lies_between_blocks_reads_the_models_own_tensors_wherever_they_go() -> None:
    view = mark_units(Normalising(), ["first.0", "first.1"], SPEC)
    assert view.classifier == "classifier"
    twin = copy.deepcopy(view)
    twin.model.double().eval()
    x = images().double()
    with torch.no_grad():
        twin.model.scale.fill_(0.3)
        assert torch.equal(through(twin, x), twin.model(x))
    through(twin, x).sum().backward()
    assert twin.model.scale.grad is not None
    assert view.model.scale.grad is None
    assert CostTable.measure(convert(view)).dense == 6912 + 2 * 9216 + 2048 + 24


class Normed(Own):
    """Batch norms between the blocks, and a buffer that is more than a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(8)])
        self.register_buffer("colours", torch.rand(3, 1, 1))
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(torch.relu(self.norms[0](self.stem(x - self.colours))))
        x = torch.relu(self.norms[1](self.down(x)))
        for block in self.second:
            x = block(x)
        return self.classifier(x.mean((2, 3)))


def test_what_is_folded_between_blocks_is_not_computed_again() -> None:
    torch.manual_seed(0)
    network = convert(mark_units(Normed().eval(), NAMES, SPEC), [Skip()]).eval()
    routes = torch.tensor([[True, True, False, True], [False, True, False, True]])
    small = compact(network, routes)
    assert [pair.conv for pair in small.folded] == ["_models.0.stem", "_models.0.down"]
    with torch.no_grad():
        want = network(images(), routes=routes[:1].expand(5, -1)).logits
        torch.testing.assert_close(small.network(images()).logits, want, rtol=1e-4, atol=1e-4)
        want = network(images()).logits
        torch.testing.assert_close(optimize(network)(images()).logits, want, rtol=1e-4, atol=1e-4)


def test_buffers_are_read_where_they_are_now() -> None:
    twin = copy.deepcopy(mark_units(Normed().eval(), NAMES, SPEC))
    twin.model.double()
    x = images().double()
    with torch.no_grad():
        twin.model.colours.add_(1.0)
        assert torch.equal(through(twin, x), twin.model(x))


@pytest.mark.parametrize("smaller", [False, True])
def test_a_marked_network_is_loaded_into_a_marked_one(tmp_path: Path, smaller: bool) -> None:
    torch.manual_seed(0)
    network = convert(mark_units(Normed().eval(), NAMES, SPEC), [Skip()]).eval()
    if smaller:
        network = compact(network, torch.tensor([[True, True, False, True], [False, True, False, True]])).network
    save_network(tmp_path, network, about={})
    again = routekit.load(tmp_path, model=mark_units(Normed(), NAMES, SPEC))
    with torch.no_grad():
        assert torch.equal(again(images()).logits, network(images()).logits)
    with pytest.raises(InputError, match="no adapter knows Normed"):
        routekit.load(tmp_path, model=Normed())


def test_marking_leaves_every_modules_mode_alone() -> None:
    model = Own().train()
    model.first[0].eval()
    mark_units(model, NAMES, SPEC)
    with pytest.raises(InputError):
        mark_units(model, ["down"], SPEC)
    assert model.training
    assert model.first[1].training
    assert not model.first[0].training


class Twice(Own):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first[0](self.first[0](torch.relu(self.stem(x))))
        return self.classifier(self.down(x).mean((2, 3)))


class Around(Own):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        x = self.first(y) + y
        return self.classifier(self.down(x).mean((2, 3)))


class Scaled(Mix):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * torch.tanh(self.conv(x))


class Argument(Own):
    """A block whose call says more than the features: calling it with them alone would be another network."""

    def __init__(self) -> None:
        super().__init__()
        self.first[0] = Scaled(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first[1](self.first[0](self.stem(x), 0.1))
        return self.classifier(self.down(x).mean((2, 3)))


class Pair(Own):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = self.first[0](self.stem(x))
        return self.classifier(self.down(self.first[1](x)).mean((2, 3))), x


class Unused(Own):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.down(self.first(self.stem(x))).mean((2, 3)))


class Branching(Mix):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Untraceable(Own):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_a_marked_block_may_do_what_no_tracer_follows() -> None:
    model = Own().eval()
    model.first[0] = Branching(4)
    network = convert(mark_units(model, ["first.0"], SPEC), [Skip()]).eval()
    with torch.no_grad():
        assert torch.equal(network(images()).logits, model(images()))


@pytest.mark.parametrize(
    ("model", "names", "says"),
    [
        (Own, ["frst.0"], "did you mean first.0"),
        (Own, [], "at least one block"),
        (Own, ["first.0", "first.0"], "each of them once"),
        (Own, ["down"], "changes the shape from"),
        (Twice, ["first.0"], "called more than once"),
        (Unused, ["second.1"], "not called"),
        (Around, ["first.0"], "no chain"),
        (Pair, ["first.0", "first.1"], "no chain|not that of its last piece"),
        (Argument, ["first.0"], "called with more than the features"),
        (Own, [""], "has no block ''"),
        (Untraceable, ["first.0"], "cannot be traced"),
    ],
)
def test_what_cannot_be_marked_says_why(model: type[nn.Module], names: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        mark_units(model(), names, SPEC)


def test_a_wrong_input_size_is_said() -> None:
    with pytest.raises(InputError, match=r"Own takes no images of \[1, 8, 8\]"):
        mark_units(Own(), NAMES, ModelSpec("custom", "own", 3, (1, 8, 8)))
