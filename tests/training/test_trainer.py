import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.errors import InputError, TrainingError
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import relaxed
from routekit.objective.objective import ObjectiveWeights, objective
from routekit.routing.decision import RouteTrace
from routekit.routing.router import RouterConfig
from routekit.training.batches import Batches, rotating
from routekit.training.log import CLOCK_FIELDS, Progress, read_metrics
from routekit.training.schedule import Schedule, TrainingConfig
from routekit.training.state import load_state, save_state
from tests.toy import toy_data, toy_view
from tests.training.runs import BENEFIT, CONFIG, trainer


@pytest.mark.parametrize("config", [CONFIG, BENEFIT, replace(BENEFIT, average=0.9)], ids=["weight", "price", "average"])
def test_a_killed_run_resumes_to_the_last_bit(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = trainer(tmp_path / "whole", config=config).fit()

    monkeypatch.setattr("routekit.training.trainer.SAVE_EVERY_SECONDS", 0.0)  # save at every step

    class Killed(Exception): ...

    for at in (3, 9, 10, 17, 23):  # in every phase, inside and at the end of epochs

        def die(progress: Progress, at: int = at) -> None:
            if progress.step == at:
                raise Killed

        with pytest.raises(Killed):
            trainer(tmp_path / "killed", config=config, on_step=die).fit()
    resumed = trainer(tmp_path / "killed", config=config).fit()

    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    lines = [
        [
            {k: v for k, v in line.items() if k not in CLOCK_FIELDS}
            for line in read_metrics(tmp_path / run / "metrics.jsonl")
        ]
        for run in ("whole", "killed")
    ]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0] if line["kind"] == "validation"] == [6, 12, 18, 24]


def test_routers_are_frozen_in_the_hard_phase() -> None:
    seen: dict[int, torch.Tensor] = {}
    run = trainer()
    run.on_step = lambda progress: seen.__setitem__(
        progress.step, torch.cat([p.detach().flatten().clone() for p in run.network.routing_parameters()])
    )
    run.fit()
    frozen = run.schedule.hard_from
    assert not torch.equal(seen[1], seen[frozen])
    assert torch.equal(seen[frozen], seen[run.schedule.steps])


@pytest.mark.parametrize("config", [CONFIG, BENEFIT], ids=["weight", "price"])
def test_the_budget_is_met_on_validation_images(config: TrainingConfig) -> None:
    run = trainer(config=config)
    run.fit()
    assert run.realized == pytest.approx(0.7, abs=0.06)  # four units: a route moves the mean by whole images


def test_a_dense_network_trains_and_keeps_its_cost() -> None:
    network = convert(toy_view())
    run = trainer(network=network, weights=ObjectiveWeights(), teacher=None)
    losses: list[float] = []
    run.on_step = lambda progress: losses.append(progress.losses["classification"])
    run.fit()
    assert sum(losses[-4:]) < sum(losses[:4])
    assert run.realized == 1.0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    run = trainer(tmp_path)

    def poison(progress: Progress) -> None:
        if progress.step == 7:  # the state of step 6, the end of the first epoch, is on disk
            run.network.backbone.fc.bias.data.fill_(math.nan)

    run.on_step = poison
    with pytest.raises(TrainingError, match="last good state is kept"):
        run.fit()
    state = load_state(tmp_path / "state.pt")
    assert state["step"] == 6
    assert all(torch.isfinite(t).all() for t in state["network"].values() if t.is_floating_point())


def test_weights_that_are_not_finite_stop_where_no_loss_shows_them(tmp_path: Path) -> None:
    run = trainer(tmp_path)

    def poison(progress: Progress) -> None:
        if progress.step == 12:  # the last of the second epoch; every image runs what its router says nothing of
            next(run.network.banks[0].parameters()).data.fill_(math.nan)

    run.on_step = poison
    with pytest.raises(TrainingError, match=r"_routers\.0.* became NaN or infinite before step 12; the last good"):
        run.fit()
    assert load_state(tmp_path / "state.pt")["step"] == 6


def test_a_damaged_state_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path).fit()
    torch.save({"version": 99}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="another version"):
        trainer(tmp_path).fit()


def test_an_interrupted_write_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1, "log": 0, "network": {}})
    with pytest.raises(ZeroDivisionError):
        from routekit.files import write_atomically

        write_atomically(path, lambda stream: 1 / 0)
    assert load_state(path)["step"] == 1


def test_an_epoch_sees_every_image_once_and_processes_share_each_step() -> None:
    images = toy_data().train
    seen: list[torch.Tensor] = []
    whole = Batches(images, 32, seed=1, rank=0, world=1)
    whole, resumed = whole.since(0), whole.since(3)
    halves = [Batches(images, 32, seed=1, rank=rank, world=2).since(0) for rank in (0, 1)]
    for _ in range(6):
        mine = [next(half)[0] for half in halves]
        seen.append(next(whole)[0])
        together = torch.stack(mine, dim=1).flatten(0, 1)  # every second sample is the other process's
        assert torch.equal(together, seen[-1])
    pixels = torch.cat(seen).flatten(1)
    assert torch.equal(pixels.unique(dim=0), images.images.flatten(1).unique(dim=0))
    assert not torch.equal(next(whole)[0], seen[0])  # the next epoch is shuffled anew
    assert torch.equal(next(resumed)[0], seen[3])


def test_checks_rotate_through_all_held_out_images() -> None:
    turns = [rotating(10, 4, turn, seed=0) for turn in range(5)]
    assert sorted(torch.cat(turns).tolist()) == sorted([*range(10)] * 2)
    assert torch.equal(rotating(3, 8, 0, seed=0).sort().values, torch.arange(3))


def test_the_schedule_by_hand() -> None:
    config = TrainingConfig(epochs=10, learning_rate=1.0, warmup=0.1, hard=0.3, anneal=0.5, temperature=(4.0, 1.0))
    schedule = Schedule(config, steps_per_epoch=10, learns=True)
    assert (schedule.steps, schedule.hard_from, schedule.anneal_from, schedule.anneal_steps) == (100, 70, 0, 50)
    assert Schedule(config, 10, True, unpriced=0.4).anneal_from == 28
    assert schedule.learning_rate(0) == pytest.approx(0.1)
    assert schedule.learning_rate(10) == pytest.approx(1.0)
    assert schedule.learning_rate(55) == pytest.approx(0.5)
    assert schedule.temperature(0) == 4.0
    assert schedule.temperature(35) == pytest.approx(2.0)
    assert schedule.temperature(99) == 1.0
    steps = Schedule(TrainingConfig(decay="multistep", learning_rate=1.0, warmup=0.0), 100, True)
    at = (0, 359, 360, 479, 480, 599)
    assert [steps.learning_rate(step) for step in at] == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    assert Schedule(config, 10, learns=False).hard_from == 0


def test_the_objective_is_the_weighted_sum_of_its_terms() -> None:
    network = convert(toy_view(), [Skip()], routers=RouterConfig(open_logit=0.5))
    costs = CostTable.measure(network)
    from routekit.routing.gate import soft

    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    trace = network.train()(x, gate=soft, execution=relaxed, temperature=0.5, keep_features=True)
    teacher = convert(toy_view(seed=1)).eval()(x, keep_features=True)
    weights = ObjectiveWeights(
        consistency=0.3, diversity=0.7, regularization=0.9, consistency_margin=0.0, diversity_margin=5.0,
        distillation=0.25, feature_distillation=2.0,
    )  # fmt: skip
    labels = torch.arange(8) % 3
    losses = objective(trace, labels, costs, weights, cost_weight=0.11, copies=2, teacher=teacher)
    by_name = {name: float(value.detach()) for name, value in losses.by_name.items()}
    factors = {
        "classification": 0.75,
        "distillation": 0.25,
        "feature_distillation": 2.0,
        "cost": 0.11,
        "consistency": 0.3,
        "diversity": 0.7,
        "regularization": 0.9,
    }
    assert float(losses.total.detach()) == pytest.approx(
        sum(factors[name] * by_name[name] for name in factors), rel=1e-5
    )
    frozen = objective(trace, labels, costs, weights, cost_weight=0.11, copies=2, routing=False)
    assert set(frozen.by_name) == {"classification"}
    assert float(frozen.total.detach()) == pytest.approx(by_name["classification"])


def test_copies_are_made_and_their_routes_are_pulled_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terms of Eq. 5 and 10 act: each image comes in copies, adjacent and varied, whose soft routes differ."""
    seen: list[tuple[RouteTrace, torch.Tensor, int]] = []

    def record(trace: RouteTrace, labels: torch.Tensor, *arguments: object, copies: int, **more: object) -> object:
        seen.append((trace, labels, copies))
        return objective(trace, labels, *arguments, copies=copies, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("routekit.training.trainer.objective", record)
    spreads = []
    for weight in (0.0, 30.0):
        seen.clear()
        torch.manual_seed(0)
        network = convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5))
        with torch.no_grad():  # routers that see differences between copies from the first step on
            for router in network.routers.routers:
                router[-1].weight.normal_(std=2.0)
        weights = ObjectiveWeights(consistency=weight, regularization=weight, consistency_margin=0.0)
        config = TrainingConfig(**{**vars(CONFIG), "gate": "soft", "temperature": (0.2, 0.2), "copies": 3})
        folder = tmp_path / str(weight)
        folder.mkdir()
        run = trainer(folder, network, weights=weights, config=config, teacher=None)
        run.fit()
        routing = [each for each in seen if len(each[0].decisions[0].weights.unique()) > 2]
        assert routing
        for trace, labels, copies in routing:
            assert (copies, len(trace.logits)) == (3, 3 * run.batches.batch_size)
            assert torch.equal(labels.view(-1, 3), labels[::3].unsqueeze(1).expand(-1, 3))
        logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        terms = [each["losses"] for each in logged if each["kind"] == "step" and each["phase"] == "route"]
        acting = [each.get("consistency", 0.0) > 0 and each.get("regularization", 0.0) > 0 for each in terms]
        assert {*acting} == {weight > 0}
        last = routing[-1][0].gates.detach().view(-1, 3, len(trace.decisions))
        spreads.append(float((last - last.mean(dim=1, keepdim=True)).norm(dim=2).mean()))
    assert spreads[1] < 0.5 * spreads[0]


def test_copies_are_needed_where_they_are_compared() -> None:
    for weights in (ObjectiveWeights(consistency=0.2), ObjectiveWeights(regularization=0.5)):
        with pytest.raises(InputError, match=r"compares copies of an image: training\.copies=2, or more"):
            trainer(weights=weights, config=BENEFIT)
    trainer(weights=ObjectiveWeights(regularization=0.5, regularization_over="units"), config=BENEFIT)
