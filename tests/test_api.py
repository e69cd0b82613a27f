"""The Python API: whatever a command can do, in a few lines, on data of any form."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import routekit
from routekit import Again, Branch, Cascade, Exit, Skip, TrainingConfig
from routekit.errors import InputError
from tests.toy import small_view, toy_data, toy_images, toy_view

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.05, check_every=4)


def tensors(count: int = 96) -> tuple[Tensor, Tensor]:
    images = toy_images(count)
    return images.images, images.labels


def test_from_a_backbone_to_a_file_and_back(tmp_path: Path) -> None:
    view = small_view()
    network = routekit.convert(view, [Cascade(width=0.3)])
    routekit.fit(network, toy_data(), target="60%", teacher=view.model, training=QUICK)
    found = routekit.evaluate(network, toy_data())
    routekit.save(network, tmp_path / "mine", classes=["red", "green", "blue"])
    again = routekit.load(tmp_path / "mine")
    assert torch.equal(routekit.evaluate(again, toy_data()).routes, found.routes)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(routekit.optimize(again)(images).routes, again(images).routes)
    (folder,) = routekit.export(again, tmp_path / "compact", kind="compact", images=images)
    plain = routekit.export(again, tmp_path / "int8", kind="passes", precision="int8", images=images)
    assert [file.name for file in plain] == ["pass-0.onnx", "pass-1.onnx"]
    assert b"QuantizeLinear" in plain[0].read_bytes()
    with pytest.raises(InputError, match="give images"):
        routekit.export(again, tmp_path / "int8", kind="passes", precision="int8")
    with pytest.raises(InputError, match="other formats fp32"):
        routekit.export(again, tmp_path / "int8", precision="int8", images=images)
    assert (folder / "network.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        tensors(),
        TensorDataset(*tensors()),
        DataLoader(TensorDataset(*tensors()), batch_size=7),
        [tensors(), tensors(24)],
        [tensors(), tensors(24), tensors(12)],
        toy_data(),
    ],
    ids=["tensors", "dataset", "loader", "two", "three", "splits"],
)
def test_images_of_any_form_train_and_measure(given: Any) -> None:
    network = routekit.convert(toy_view(), [Skip()])
    routekit.fit(network, given, target="70%", training=QUICK)
    found = routekit.evaluate(network, given)
    assert 0 < found.cost <= routekit.CostTable.measure(network).maximum


def test_float_images_are_taken_as_they_are() -> None:
    images, labels = tensors()
    seen: list[Tensor] = []
    network = routekit.convert(toy_view())
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    routekit.evaluate(network, (images.float() / 255, labels))
    assert torch.equal(seen[0], images.float() / 255)


def test_a_loss_and_an_optimiser_of_ones_own_are_used() -> None:
    asked: list[torch.Size] = []
    built: list[list[dict[str, Any]]] = []

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        asked.append(logits.shape)
        return F.multi_margin_loss(logits, labels, reduction="none")

    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        built.append(groups)
        return torch.optim.AdamW(groups, lr=0.01)

    network = routekit.convert(toy_view())
    before = [parameter.clone() for parameter in network.parameters()]
    routekit.fit(network, tensors(), training=QUICK, loss=loss, optimizer=optimizer)
    assert asked
    assert len(built) == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_passes_are_trained_together_or_stay_as_they_are() -> None:
    for frozen in (False, True):
        network = routekit.convert(small_view(), [Cascade(width=(0.25, 0.5))])
        before = {name: value.clone() for name, value in network.state_dict().items() if value.is_floating_point()}
        training = TrainingConfig(epochs=1, batch_size=32, learning_rate=0.05, frozen=frozen)
        routekit.fit(network, toy_data(), target="70%", training=training)
        learned = [(name, value) for name, value in network.state_dict().items() if name in before]
        moved = [name for name, value in learned if not torch.equal(value, before[name])]
        changed = {name.split(".")[1] for name in moved if name.startswith("_models")}
        assert changed == ({"1", "2"} if frozen else {"0", "1", "2"})
        thresholds = [float(decider.bias) for decider in network.deciders]
        assert thresholds[0] != thresholds[1]  # each pass has its own


def test_networks_that_are_done_are_joined_and_trained_on() -> None:
    first, second = routekit.convert(small_view(0, 8)), routekit.convert(small_view(1))
    joined = routekit.join([first, second], average=True)
    routekit.fit(joined, toy_data(), target="80%", training=QUICK)
    found = routekit.evaluate(joined, toy_data(), target="60%")
    dense = routekit.CostTable.measure(joined).dense
    assert abs(found.cost / dense - 0.6) < 0.1


def test_junctions_go_together_in_one_list() -> None:
    network = routekit.convert(small_view(), [Exit(at="layer2.0", rule="confidence"), Cascade(width=0.3), Again()])
    assert network.columns == ["past narrow", "past layer2.0", "past end"]
    with pytest.raises(InputError, match="joins what is decided by certainty"):
        routekit.convert(small_view(), [Skip(), Again()])
    for wrong in (Skip(), ["skip"]):
        with pytest.raises(InputError, match="a list of configs"):
            routekit.convert(toy_view(), wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no narrow form"):
        routekit.convert(toy_view(), [Branch()])


def test_a_target_that_cannot_be_met_is_told() -> None:
    network = routekit.convert(toy_view(), [Skip()])
    with pytest.raises(InputError, match="out of reach"):
        routekit.fit(network, tensors(), target="1%", training=QUICK)
    with pytest.raises(InputError, match="nothing is decided"):
        routekit.evaluate(routekit.convert(toy_view()), tensors(), target="50%")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((torch.zeros(4, 3, 9, 9), torch.zeros(4)), "resize them first"),
        ((torch.zeros(4, 3, 8, 8), torch.zeros(3)), "4 images and 3 labels"),
        ((torch.zeros(4, 3, 8, 8), torch.full((4,), 7)), "the network has 3 classes"),
        ((torch.zeros(0, 3, 8, 8), torch.zeros(0)), "no images"),
    ],
)
def test_images_that_do_not_fit_are_told(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        routekit.evaluate(routekit.convert(toy_view()), given)


def test_a_recipe_is_carried_out(tmp_path: Path) -> None:
    record = routekit.run(
        "skip", tmp_path / "run", target="70%", model={"name": "resnet20", "weights": "none"},
        data={"source": "digits", "input_size": 16}, training={"epochs": 0.1}, dense={"epochs": 0.1},
    )  # fmt: skip
    assert record["method"] == "routed"
    assert routekit.load(tmp_path / "run").columns


def test_a_bare_module_needs_to_be_known() -> None:
    with pytest.raises(InputError, match="needs spec"):
        routekit.convert(nn.Linear(3, 3), [Skip()])
