"""Adaptive computation time, against a program that halts image by image."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.execution.prepare import optimize
from routekit.formats.checkpoint import load, save_network
from routekit.formats.onnx.file import save_onnx
from routekit.junctions.act import BEGIN, EPSILON, Act, HaltingUnit, Sact, stages_of
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.execution import relaxed, sparse
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.objective.terms import ponder
from routekit.pipeline.export import write
from routekit.runtime.load import load_runtime
from routekit.runtime.runtime import TorchRuntime
from tests.toy import small_view, toy_data, toy_noise, toy_view
from tests.training.runs import BENEFIT, TrainingConfig, trainer


def halting(junction: Act | None = None, spread: float = 1.0, depth: int = 26) -> RoutedNetwork:
    """A network whose stages halt after one unit or more, depending on the image, or on the position."""
    torch.manual_seed(0)
    network = convert(small_view(depth=depth), [junction or Act()]).eval()
    for unit in network.backbone.modules():
        if isinstance(unit, HaltingUnit):
            for layer, width in ((unit.score, spread), (unit.local, 0.5 * spread)):
                if layer is None:
                    continue
                *norms, last = layer if isinstance(layer, torch.nn.Sequential) else [layer]
                torch.nn.init.normal_(last.weight, std=width)
                for norm in norms:
                    torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
                    torch.nn.init.uniform_(norm.running_var, 0.7, 1.4)
                if last.bias is not None:
                    torch.nn.init.constant_(last.bias, -0.5)
    return network


def varied(count: int) -> Tensor:
    """Images of more and less contrast, which halt at different units."""
    return toy_noise(count) * torch.linspace(0.05, 3, count).view(-1, 1, 1, 1)


@torch.no_grad()
def one_by_one(network: RoutedNetwork, image: Tensor) -> tuple[Tensor, float, int]:
    """The logits of one image `[1, C, H, W]`, its ponder cost and how many units ran, as Graves (2016) writes it."""
    view = network.view
    x, rho, ran = view.stem(image), 0.0, 0
    stages: dict[int, list[HaltingUnit]] = {}
    for unit in view.units:
        assert isinstance(unit.block, HaltingUnit)
        stages.setdefault(unit.stage, []).append(unit.block)
    for units in stages.values():
        made, total, out = x, 0.0, torch.zeros(())
        for number, unit in enumerate(units, start=1):
            made = unit.block(made)
            last = unit.score is None
            h = 1.0 if last else float(torch.sigmoid(unit.score(made.mean(dim=(2, 3)))))
            if last or total + h >= 1 - EPSILON:
                out = out + (1 - total) * made
                rho, ran = rho + number + 1 - total, ran + number
                break
            out, total = out + h * made, total + h
        x = out
    return view.head(x), rho, ran


def test_each_image_halts_as_the_papers_say() -> None:
    network, x = halting(), varied(24)
    want = [one_by_one(network, image) for image in x.split(1)]
    counts = [ran for _, _, ran in want]
    assert len({*counts}) > 2
    units = len(network.view.units)
    with torch.no_grad():
        for trace in (network(x), network(x, execution=sparse), network.train(False)(x, execution=relaxed)):
            torch.testing.assert_close(trace.logits, torch.cat([logits for logits, _, _ in want]), rtol=1e-4, atol=1e-4)
            stages = len(stages_of(network))
            assert (trace.routes.sum(dim=1) + stages).tolist() == counts
            rho = ponder(trace.at_units, stages_of(network), EPSILON)
            torch.testing.assert_close(rho, torch.tensor([each for _, each, _ in want]) / units, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def position_by_position(network: RoutedNetwork, image: Tensor) -> tuple[Tensor, float, list[float]]:
    """The logits of one image, its ponder cost and the share of positions of each unit, as Figurnov et al. write it."""
    view, stages = network.view, dict[int, list[HaltingUnit]]()
    x, rho, shares = view.stem(image), 0.0, list[float]()
    for unit in view.units:
        assert isinstance(unit.block, HaltingUnit)
        stages.setdefault(unit.stage, []).append(unit.block)
    for units in stages.values():
        made, out, total, stage_rho = x, torch.zeros(()), torch.zeros(()), torch.zeros(())
        active = torch.ones(())
        for number, unit in enumerate(units, start=1):
            computed = unit.block(made)
            made = active * computed + (1 - active) * made if number > 1 else computed
            if number == 1:
                height, width = made.shape[2:]
                out, total = torch.zeros_like(made), torch.zeros(height, width)
                stage_rho, active = torch.zeros(height, width), torch.ones(height, width)
            # The first of two convolutions is computed where the second one looks, half of the work.
            near = torch.nn.functional.max_pool2d(active.expand(height, width)[None], 3, 1, 1)
            shares.append(float(near.mean() + active.mean()) / 2)
            if unit.score is None:
                h = torch.ones(height, width)
            else:
                assert unit.local is not None
                h = torch.sigmoid(unit.score(made.mean(dim=(2, 3))).view(1, 1) + unit.local(made)[0, 0])
            for i in range(height):
                for j in range(width):
                    if not active[i, j]:
                        continue
                    if float(total[i, j] + h[i, j]) >= 1 - EPSILON:
                        out[..., i, j] += (1 - total[i, j]) * made[..., i, j]
                        stage_rho[i, j] += number + 1 - total[i, j]
                        active[i, j] = 0
                    else:
                        out[..., i, j] += h[i, j] * made[..., i, j]
                        total[i, j] += h[i, j]
        x, rho = out, rho + float(stage_rho.mean())
    return view.head(x), rho, shares


def test_each_position_halts_as_the_paper_says(tmp_path: Path) -> None:
    network, x = halting(Sact(), depth=20), varied(6)  # some scores are so small that they are 0
    want = [position_by_position(network, image) for image in x.split(1)]
    units, stages = len(network.view.units), stages_of(network)
    firsts = {0} | {sum(len(stage) + 1 for stage in stages[:place]) for place in range(len(stages))}
    shares = torch.tensor([[s for place, s in enumerate(each) if place not in firsts] for *_, each in want])
    assert len(shares[(shares > 0) & (shares < 1)].unique()) > 3
    save_network(tmp_path, network, about={"classes": ["a", "b", "c"]})
    with torch.no_grad():
        for trace in (network(x), network(x, execution=relaxed), load(tmp_path)(x)):
            torch.testing.assert_close(trace.logits, torch.cat([each for each, *_ in want]), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(trace.computed, shares)
            assert torch.equal(trace.routes, shares > 0)
            rho = ponder(trace.at_units, stages, EPSILON)
            torch.testing.assert_close(rho, torch.tensor([each for _, each, _ in want]) / units, rtol=1e-4, atol=1e-4)
    # The cost is that of the positions that are computed; the fast form takes the same routes.
    costs = CostTable.measure(network)
    runtime = TorchRuntime(network, {"classes": ["a", "b", "c"]})
    answer = runtime(x)
    assert answer.computed is not None
    by_hand = costs.base.sum() + (shares.double() * costs.extra).sum(dim=1)
    torch.testing.assert_close(costs.of_routes(answer.computed), by_hand, rtol=1e-5, atol=0)
    assert bool((by_hand < costs.of_routes(answer.routes) - 1).any())
    fast = optimize(network)(x)
    torch.testing.assert_close(fast.logits, torch.cat([each for each, *_ in want]), rtol=1e-3, atol=1e-4)
    assert torch.equal(fast.routes, answer.routes)


@pytest.mark.parametrize("kind", ["onnx", "passes", "openvino", "torch"])
def test_positions_are_not_exported(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"positions of features decide in this network \(junctions=sact\)"):
        write(kind, tmp_path / "out", halting(Sact()), {"classes": ["a", "b", "c"]})
    assert not (tmp_path / "out").exists()


def test_networks_of_former_versions_score_features_as_they_are(tmp_path: Path) -> None:
    network, x = halting(Act(normalize=False), depth=20), varied(4)
    assert all(isinstance(unit, torch.nn.Linear) for name, unit in network.named_modules() if name.endswith("score"))
    save_network(tmp_path, network, about={"classes": ["a", "b", "c"]})
    spec = json.loads((tmp_path / "network.json").read_text())
    assert spec["networks"][0]["junctions"] == [{"kind": "act", "normalize": False}]
    del spec["networks"][0]["junctions"][0]["normalize"]
    (tmp_path / "network.json").write_text(json.dumps(spec))
    with torch.no_grad():
        assert torch.equal(load(tmp_path, verify=False)(x).logits, network(x).logits)


def test_every_execution_and_every_file_answers_alike(tmp_path: Path) -> None:
    network, x = halting(depth=20), varied(16)
    with torch.no_grad():
        want = network(x)
    save_network(tmp_path / "saved", network, about={"classes": ["a", "b", "c"]})
    save_onnx(tmp_path / "onnx", network, {})
    again = load(tmp_path / "saved")
    for answer in (
        optimize(network)(x),
        again(x),
        *(load_runtime(tmp_path / "onnx")(part) for part in (x, x[:1])),
    ):
        count = len(answer.logits)
        torch.testing.assert_close(answer.logits, want.logits[:count], rtol=1e-3, atol=1e-4)
        assert torch.equal(answer.routes, want.routes[:count])


@pytest.mark.parametrize("junction", [Act(), Sact()])
def test_scores_learn_to_halt_and_the_budget_is_met(junction: Act) -> None:
    torch.manual_seed(0)
    network = convert(small_view(depth=26), [junction])
    costs = CostTable.measure(network)
    config = TrainingConfig(**{**vars(BENEFIT), "gate": "hard", "epochs": 8, "hard": 0.0, "learning_rate": 0.02})
    run = trainer(network=network, config=config, weights=ObjectiveWeights(distillation=0.5), target=0.7 * costs.dense)
    scores = [unit.score for unit in network.backbone.modules() if isinstance(unit, HaltingUnit) and unit.score]
    maps = [unit.local for unit in network.backbone.modules() if isinstance(unit, HaltingUnit) and unit.local]
    assert bool(maps) == junction.by_position
    before = [score[1].bias.detach().clone() for score in scores]
    seen: list[float] = []
    run.on_step = lambda step: seen.append(step.losses["ponder"])
    run.fit()
    assert all(not torch.equal(score[1].bias, old) for score, old in zip(scores, before, strict=True))
    assert all(bool(each[1].weight.any()) for each in maps)
    # Inference normalises by what training saw.
    assert all(bool((each[0].running_mean != 0).any()) for each in [*scores, *maps])
    assert seen[-1] < seen[0]
    found = evaluate(network, run.data.val, costs)
    assert found.cost / costs.dense == pytest.approx(0.7, abs=0.05)


def test_a_budget_is_met_where_scores_have_not_learned_to_halt_yet() -> None:
    network = halting(spread=0.02, depth=20)
    for unit in network.backbone.modules():
        if isinstance(unit, HaltingUnit) and unit.score is not None:
            torch.nn.init.constant_(unit.score[1].bias, BEGIN)
    costs, images = CostTable.measure(network), toy_data().val
    assert evaluate(network, images, costs).cost == costs.maximum
    target = 0.7 * costs.dense
    # At a bias of 1, they add up to less than 1 as well.
    assert calibrate(network, images, costs, target) == pytest.approx(target, rel=0.05)


def test_what_act_does_not_go_with() -> None:
    with pytest.raises(InputError, match="junctions=act goes alone"):
        Act().check([Act(), Skip()])
    with pytest.raises(InputError, match="junctions=act goes alone"):
        Act().check([Exit(), Act()])
    with pytest.raises(InputError, match="junctions=sact goes alone"):
        Sact().check([Sact(), Act()])
    with pytest.raises(InputError, match="no stage of several units with plain shortcuts"):
        convert(small_view(depth=8), [Act()])
    assert stages_of(convert(toy_view(), [Skip()])) == ()
