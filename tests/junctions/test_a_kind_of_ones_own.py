"""A new way of routing is one file: it converts, trains, meets a budget, is evaluated, exported and reported."""

import json
from pathlib import Path

import pytest
import torch

from routekit.junctions.convert import convert
from routekit.junctions.kinds import junctions
from routekit.network.execution import masked
from tests.cli.command import FAST, in_process, write_tree
from tests.junctions.mean_colour import MeanColour
from tests.toy import small_view, toy_noise

HERE = Path(__file__).parent


def test_it_is_one_file_of_less_than_eighty_lines() -> None:
    assert junctions["mean_colour"] is MeanColour
    assert len((HERE / "mean_colour.py").read_text().splitlines()) < 80


def test_its_decisions_are_those_of_the_hash() -> None:
    network = convert(small_view(), [MeanColour()]).eval()
    images = toy_noise(32)
    trace = network(images)
    logits = network.routers.policy(images)
    assert torch.equal(trace.routes, logits[..., 0] >= logits[..., 1])
    assert len(torch.unique(trace.routes, dim=0)) > 3
    assert torch.equal(network(images, execution=masked).routes, trace.routes)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kind")
    write_tree(folder / "images", train=32)
    start = ["finetune", "resnet20", "--weights", "none", "--data", "images", "--epochs", 1, "--name", "dense"]
    assert in_process(*start, *FAST, cwd=folder).returncode == 0
    return folder


def test_it_goes_all_the_way(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 2,
        "--junctions", "mean_colour", "--set", "junctions.mean_colour.bits=5", "--name", "mine", *FAST, "--json",
        cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["junctions"] == ["mean_colour"]
    assert record["routes"]["unique"] > 3
    # So few images cost what these cost.
    assert abs(record["flops"]["realized"] / record["flops"]["target"] - 1) < 0.15
    measured = json.loads(in_process("evaluate", "runs/mine", "--json", cwd=workplace).stdout)
    assert measured["accuracy"]["routed"] == record["accuracy"]["routed"]
    export = ["export", "runs/mine", "--out", "onnx", "--format", "onnx", "--verify", "images/test", "--json"]
    done = in_process(*export, cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["verified"]) == {"single.onnx", "batch.onnx"}
    done = in_process("report", "runs/mine", cwd=workplace)
    assert done.returncode == 0, done.stderr
    folder = workplace / "runs/mine/report"
    assert f"{100 * record['accuracy']['routed']:.2f}% (" in (folder / "report.md").read_text()
    assert "layer1.0" in (folder / "index.html").read_text()


def test_help_says_what_it_decides() -> None:
    from routekit.junctions.words import kinds

    assert kinds()["mean_colour"] == "which units run, by a hash of the mean colour"


def test_its_settings_are_checked(workplace: Path) -> None:
    wrong = in_process(
        "convert", "resnet20", "--data", "images", "--target-flops", "60%", "--junctions", "mean_colour",
        "--set", "junctions.mean_colour.bit=5", cwd=workplace,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "did you mean bits?" in wrong.stderr
