"""Averaged weights: by hand, what they are of, and what training and steering see of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from routekit.evaluation.evaluate import evaluate
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.routing.router import RouterConfig
from routekit.training.average import Average
from routekit.training.log import Progress, read_metrics
from routekit.training.schedule import TrainingConfig
from routekit.training.state import load_state
from tests.toy import small_view, toy_data, toy_exits, toy_routed, toy_view
from tests.training.runs import CONFIG, trainer

# What decides, and what is no statistic.
LEFT_OUT = ("_routers", "_deciders")


def is_averaged(name: str) -> bool:
    return not name.startswith(LEFT_OUT) and "num_batches_tracked" not in name


def fill(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(value)


def state_of(network: RoutedNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("build", [toy_exits, lambda: toy_routed("cnn"), lambda: toy_routed("rnn")])
def test_an_average_by_hand(build: Callable[[], RoutedNetwork]) -> None:
    network = build()
    average = Average(network, 0.5)
    # 1, 3 and 5 in turn: (1 / 2 + 3) / 1.5 after the second, (1 / 4 + 3 / 2 + 5) / 1.75 after the third.
    for step, (value, want) in enumerate([(1.0, 1.0), (3.0, 7 / 3), (5.0, 27 / 7)], start=1):
        fill(network, value)
        average.update(step)
        for found in average.values:
            torch.testing.assert_close(found, torch.full_like(found, want))
    average.keep()
    names = [name for name in network.state_dict() if is_averaged(name)]
    assert len(names) == len(average.values)
    assert any("running_var" in name for name in names)
    assert any(name.startswith(LEFT_OUT) for name in network.state_dict())
    for name, tensor in network.state_dict().items():
        want = 27 / 7 if name in names else 5.0
        assert tensor.float().flatten().tolist() == pytest.approx([want] * tensor.numel()), name


def test_what_is_frozen_is_not_averaged() -> None:
    network = convert(small_view(), [Cascade(width=0.5, own=True)])
    network.backbone.requires_grad_(False)
    average = Average(network, 0.5, frozen=True)
    for step, value in enumerate((1.0, 3.0), start=1):
        fill(network, value)
        average.update(step)
    average.keep()
    inside = {tensor.data_ptr() for tensor in network.backbone.state_dict().values()}
    for name, tensor in network.state_dict().items():
        want = 7 / 3 if is_averaged(name) and tensor.data_ptr() not in inside else 3.0
        assert tensor.float().flatten().tolist() == pytest.approx([want] * tensor.numel()), name


def test_the_average_is_lent_and_thresholds_that_are_set_meanwhile_stay() -> None:
    network = toy_exits()
    average = Average(network, 0.9)
    average.update(1)
    first = state_of(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    own, wanted = state_of(network), network.bias + 2.0
    with pytest.raises(ZeroDivisionError), average.applied():
        for name, value in network.state_dict().items():
            assert torch.equal(value, (first if is_averaged(name) else own)[name]), name
        network.set_bias(wanted)
        raise ZeroDivisionError
    assert torch.equal(network.bias, wanted)
    network.set_bias(wanted - 2.0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name]), name


def test_without_a_step_or_a_decay_nothing_changes() -> None:
    network = toy_exits()
    before = state_of(network)
    Average(network, 0.9).keep()
    none = Average(network, 0.0)
    none.update(1)
    none.keep()
    assert none.values == []
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_run_measures_and_keeps_the_average_of_its_weights(tmp_path: Path) -> None:
    config, seen = replace(CONFIG, epochs=2, average=0.8), list[dict[str, Tensor]]()
    settings = {"weights": ObjectiveWeights(), "teacher": None}
    run = trainer(tmp_path, convert(toy_view()), config=config, **settings)

    def look(progress: Progress) -> None:
        del progress
        seen.append(state_of(run.network))

    run.on_step = look
    kept = run.fit()
    state, steps = load_state(tmp_path / "state.pt"), len(seen)
    assert steps == 12
    shares = torch.tensor([0.8 ** (steps - 1 - step) for step in range(steps)], dtype=torch.float64)
    for name, tensor in kept.state_dict().items():
        if is_averaged(name):
            every = torch.stack([weights[name].double() for weights in seen])
            want = torch.tensordot(shares / shares.sum(), every, dims=1)
            torch.testing.assert_close(tensor.double(), want, rtol=1e-5, atol=1e-6)
    # The optimiser goes on from its own weights, as if there were no average.
    plain = trainer(network=convert(toy_view()), config=replace(config, average=0.0), **settings).fit()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, state["network"][name]), name
        assert torch.equal(tensor, seen[-1][name]), name
    assert not torch.equal(plain.backbone.fc.weight, kept.backbone.fc.weight)
    # What is measured is what is kept: the answers of both networks differ on held-out images.
    line = read_metrics(tmp_path / "metrics.jsonl")[-1]
    measured, other = (evaluate(each, toy_data().val, run.costs) for each in (kept, plain))
    assert line["accuracy"] == measured.accuracy
    assert not torch.equal(measured.correct, other.correct)


def test_thresholds_fit_the_averaged_weights(tmp_path: Path) -> None:
    network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5))
    run = trainer(tmp_path, network, config=replace(CONFIG, average=0.9))
    kept = run.fit()
    cost = evaluate(kept, run.data.val, run.costs).cost / run.costs.dense
    assert cost == pytest.approx(run.realized)
    assert cost == pytest.approx(0.7, abs=0.06)
    state = load_state(tmp_path / "state.pt")["network"]
    for name, tensor in kept.state_dict().items():
        if not is_averaged(name):
            assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("average", [1.0, -0.1])
def test_a_decay_out_of_its_range_is_refused(average: float) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig(average=average)
