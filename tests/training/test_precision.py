"""In which precision a run computes: measured once, on a copy, and kept."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.training import precision
from routekit.training.log import Progress
from routekit.training.precision import FASTER, LEAST, ROUNDS, Measure, decide_bf16, seconds_of_step, use_bf16
from routekit.training.state import load_state
from tests.toy import small_view, toy_view
from tests.training.runs import CONFIG, trainer

CPU = Accelerator(cpu=True)
# 4 images of such a network are worth measuring.
COST = LEAST / 4


def hardware(patch: pytest.MonkeyPatch, *, amx: bool, avx512: bool) -> None:
    """Say what the CPU can do."""
    patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)


def clock(fp32: list[float], bf16: list[float]) -> tuple[Measure, list[bool]]:
    """A measure that takes these seconds in turn, and the precisions for which it was asked."""
    asked: list[bool] = []
    left = {False: iter(fp32), True: iter(bf16)}

    def measure(network: RoutedNetwork, x: Tensor, bf16: bool) -> float:
        assert network.training
        assert x.shape == (4, 3, 8, 8)
        asked.append(bf16)
        return next(left[bf16])

    return measure, asked


def never(*_: object) -> float:
    raise AssertionError("measured")


@pytest.mark.parametrize("amx", [True, False])
@pytest.mark.parametrize(("bf16", "faster"), [(1 / FASTER - 0.01, True), (1 / FASTER + 0.01, False), (8.0, False)])
def test_the_decision_follows_the_measurement(
    bf16: float, faster: bool, amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, amx=amx, avx512=True)
    # The first round counts for nothing. Of the others, each compares what was timed at the same time.
    wrong = (1.0, 2.0) if faster else (2.0, 1.0)
    measure, asked = clock([wrong[0], 1.0, 10.0, 2.0], [wrong[1], bf16, 10 * bf16, 2 * bf16])
    network = convert(toy_view())
    assert decide_bf16(network, "auto", CPU, images=4, cost=COST, measure=measure) == faster
    assert asked == [False, True] * (1 + ROUNDS)


@pytest.mark.parametrize("amx", [True, False])
def test_where_rounds_disagree_the_hardware_decides(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, amx=amx, avx512=True)
    measure, asked = clock([1.0, 1.0, 1.0], [1.0, 0.5, 0.9])
    assert decide_bf16(convert(toy_view()), "auto", CPU, images=4, cost=COST, measure=measure) == amx
    assert len(asked) == 6


def test_what_is_told_or_not_worth_it_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    network = convert(toy_view())
    for amx in (True, False):
        hardware(monkeypatch, amx=amx, avx512=True)
        for told in ("bf16", "fp32"):
            found = decide_bf16(network, told, CPU, images=64, cost=COST, measure=never)
            assert found == (told == "bf16")
        # In a small batch, noise would decide.
        assert decide_bf16(network, "auto", CPU, images=3, cost=COST, measure=never) == amx
    hardware(monkeypatch, amx=False, avx512=False)
    assert not decide_bf16(network, "auto", CPU, images=64, cost=COST, measure=never)
    assert not use_bf16("auto", torch.device("cpu"))


def test_all_processes_take_the_decision_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, amx=False, avx512=False)
    sent: list[float] = []

    def from_first(own: Tensor) -> Tensor:
        sent.append(float(own))
        return torch.tensor(1.0)

    monkeypatch.setattr(precision, "broadcast", from_first)
    assert decide_bf16(convert(toy_view()), "auto", CPU, images=4, cost=COST, measure=never)
    assert sent == [0.0]


def test_measuring_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, amx=True, avx512=True)
    network = convert(small_view(), [Cascade(width=0.5, own=False)])
    seen: list[tuple[bool, float]] = []

    def measure(tried: RoutedNetwork, x: Tensor, bf16: bool) -> float:
        statistics = [value.clone() for name, value in tried.state_dict().items() if "running_mean" in name]
        seconds = seconds_of_step(tried, x, bf16)
        torch.rand(1)  # as dropout does
        now = [value for name, value in tried.state_dict().items() if "running_mean" in name]
        # Every pass has run, in training mode, and back.
        assert not any(torch.equal(a, b) for a, b in zip(statistics, now, strict=True))
        assert all(parameter.grad is not None for parameter in tried.computing_parameters())
        seen.append((bf16, seconds))
        return 1.0

    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    decide_bf16(network, "auto", CPU, images=4, cost=COST, measure=measure)
    assert len(seen) == 2 * (1 + ROUNDS)
    assert all(seconds > 0 for _, seconds in seen)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("found", [True, False])
def test_a_run_decides_once_and_resumes_in_its_precision(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware(monkeypatch, amx=not found, avx512=True)
    monkeypatch.setattr("routekit.training.trainer.SAVE_EVERY_SECONDS", 0.0)
    config = replace(CONFIG, precision="auto", epochs=1)
    asked: list[tuple[int, float]] = []

    def decide(*_: object, images: int, cost: float) -> bool:
        asked.append((images, cost))
        return found

    monkeypatch.setattr("routekit.training.trainer.decide_bf16", decide)
    whole = trainer(config=config).fit()

    def die(progress: Progress) -> None:
        if progress.step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trainer(tmp_path, config=config, on_step=die).fit()
    assert load_state(tmp_path / "state.pt")["bf16"] == found
    run = trainer(tmp_path, config=config)
    resumed = run.fit()
    assert run.bf16 == found
    assert asked == [(64, run.costs.dense)] * 2  # 32 images, two copies of each
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    monkeypatch.setattr("routekit.training.trainer.decide_bf16", lambda *_, **__: not found)
    other = trainer(config=config).fit().state_dict()
    assert not all(torch.equal(tensor, other[name]) for name, tensor in whole.state_dict().items())
