"""Adaptive computation time, against a program that halts image by image."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.execution.prepare import optimize
from routekit.formats.checkpoint import load, save_network
from routekit.formats.onnx.file import save_onnx
from routekit.junctions.act import EPSILON, Act, HaltingUnit, stages_of
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.execution import relaxed, sparse
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.objective.terms import ponder
from routekit.runtime.load import load_runtime
from tests.toy import small_view, toy_noise, toy_view
from tests.training.runs import BENEFIT, TrainingConfig, trainer


def halting(spread: float = 1.0) -> RoutedNetwork:
    """A network whose stages halt after one unit or more, depending on the image."""
    torch.manual_seed(0)
    network = convert(small_view(depth=26), [Act()]).eval()
    for unit in network.backbone.modules():
        if isinstance(unit, HaltingUnit) and unit.score is not None:
            torch.nn.init.normal_(unit.score.weight, std=spread)
            torch.nn.init.constant_(unit.score.bias, -0.5)
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


def test_every_execution_and_every_file_answers_alike(tmp_path: Path) -> None:
    network, x = halting(), varied(16)
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


def test_scores_learn_to_halt_and_the_budget_is_met() -> None:
    torch.manual_seed(0)
    network = convert(small_view(depth=26), [Act()])
    costs = CostTable.measure(network)
    config = TrainingConfig(**{**vars(BENEFIT), "gate": "hard", "epochs": 8, "hard": 0.0, "learning_rate": 0.02})
    run = trainer(network=network, config=config, weights=ObjectiveWeights(distillation=0.5), target=0.7 * costs.dense)
    scores = [unit.score for unit in network.backbone.modules() if isinstance(unit, HaltingUnit) and unit.score]
    before = [score.bias.detach().clone() for score in scores]
    seen: list[float] = []
    run.on_step = lambda step: seen.append(step.losses["ponder"])
    run.fit()
    assert all(not torch.equal(score.bias, old) for score, old in zip(scores, before, strict=True))
    assert seen[-1] < seen[0]
    found = evaluate(network, run.data.val, costs)
    assert found.cost / costs.dense == pytest.approx(0.7, abs=0.05)


def test_what_act_does_not_go_with() -> None:
    with pytest.raises(InputError, match="junctions=act goes alone"):
        Act().check([Act(), Skip()])
    with pytest.raises(InputError, match="junctions=act goes alone"):
        Act().check([Exit(), Act()])
    with pytest.raises(InputError, match="no stage of several units with plain shortcuts"):
        convert(small_view(depth=8), [Act()])
    assert stages_of(convert(toy_view(), [Skip()])) == ()
