"""A user's own network, of grey images, from the command line: every command works on its run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import BENCH, FAST, in_process

SOURCE = """
import torch
from torch import nn

import routekit


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(Block(8), Block(8))
        self.down = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.tail = nn.Sequential(Block(16), Block(16))
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        x = self.body(torch.relu(self.stem(x)))
        return self.fc(self.tail(torch.relu(self.down(x))).mean((2, 3)))


def make_net(num_classes):
    spec = routekit.ModelSpec("custom", "net", num_classes, (1, 16, 16), mean=(0.4,), std=(0.3,))
    return routekit.mark_units(Net(num_classes), ["body.0", "body.1", "tail.0", "tail.1"], spec)


def broken(num_classes):
    raise KeyError("no weights here")


def nothing():
    return {"a": 1}


def shapes(num_classes):
    model = Net(num_classes)
    return routekit.mark_units(model, ["down"], routekit.ModelSpec("custom", "net", num_classes, (1, 16, 16)))
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_model.py").write_text(SOURCE)
    start = ["finetune", "my_model.py:make_net", "--data", "digits", "--epochs", 1, "--name", "dense", *FAST]
    done = in_process(*start, cwd=folder)
    assert done.returncode == 0, done.stderr
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20))
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "grey.png")
    return folder


@pytest.mark.parametrize("junctions", ["skip", "cascade"])
def test_every_command_works_on_the_run(workplace: Path, junctions: str) -> None:
    def call(*arguments: object) -> dict[str, object]:
        done = in_process(*arguments, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    run = f"runs/{junctions}"
    made = call(
        "convert", "my_model.py:make_net", "--weights", "runs/dense", "--target-flops", "60%", "--epochs", 0.2,
        "--junctions", junctions, "--name", junctions, *FAST,
    )  # fmt: skip
    assert call("evaluate", run)["accuracy"] == made["accuracy"]
    assert call("convert", "--resume", run)["accuracy"] == made["accuracy"]
    (answer,) = call("predict", run, "grey.png")["images"]  # type: ignore[misc]
    call("export", run, "--out", f"onnx-{junctions}", "--format", "onnx")
    (exported,) = call("predict", f"onnx-{junctions}", "grey.png")["images"]  # type: ignore[misc]
    assert exported["top"][0]["class"] == answer["top"][0]["class"]
    assert exported["top"][0]["probability"] == pytest.approx(answer["top"][0]["probability"], abs=1e-4)
    assert call("flops", run)["total"] > 0
    call("bench", run, "--batch", "1", *BENCH[:-1])
    call("report", run)
    call("export", run, "--out", f"compact-{junctions}")


def test_a_ladder_of_ones_own_network(workplace: Path) -> None:
    """Forms are loaded into what the factory makes, also in the process that times them."""

    def call(*arguments: object) -> dict[str, Any]:
        done = in_process(*arguments, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    # One thread: other tests run beside this one, and threads of torch would wait for each other.
    made = ["my_model.py:make_net", "--weights", "runs/dense", "--forms", "60%", "--epochs", 0.2, "--threads", 1]
    record = call("convert", *made, "--target-flops", "80%", "--name", "ladder", *FAST)
    assert record["time"]["runtime"] == "torch"
    call("aim", "runs/ladder", "--max-drop", 90, "--runtime", "torch", "--precision", "bf16")
    record = call("aim", "runs/ladder", "--max-drop", 90, "--runtime", "onnx", "--precision", "fp32")
    assert call("evaluate", "runs/ladder")["accuracy"] == record["accuracy"]
    (answer,) = call("predict", "runs/ladder", "grey.png")["images"]
    assert 0 < answer["top"][0]["probability"] <= 1


def test_a_network_that_guesses_is_warned_of(workplace: Path) -> None:
    given = ["--target-flops", "60%", "--junctions", "skip", "--epochs", "0", "--set", "data.input_size=16"]
    done = in_process("convert", "my_model.py:make_net", "--data", "digits", *given, "--name", "raw", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "hardly more than chance" in done.stderr
    given = [*given, "--weights", "runs/dense"]
    done = in_process("convert", "my_model.py:make_net", "--data", "digits", *given, "--name", "learned", cwd=workplace)
    assert "chance:" not in done.stderr


def test_the_exported_file_says_how_images_are_read(workplace: Path) -> None:
    import onnx

    in_process("export", "runs/dense", "--out", "dense-onnx", "--format", "onnx", cwd=workplace)
    model = onnx.load(str(workplace / "dense-onnx" / "batch.onnx"))
    described = json.loads(next(prop.value for prop in model.metadata_props if prop.key == "routekit"))
    reading = described["preprocessing"]
    assert (reading["size"], reading["mean"], reading["std"]) == ([16, 16], [0.4], [0.3])
    assert reading["channels"] == 1
    assert not any(node.op_type == "If" for node in model.graph.node)  # nothing is decided in it


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_model.py:broken", "no weights here"),
        ("my_model.py:nothing", "gave a dict"),
        ("my_model.py:make_nat", "did you mean make_net"),
        ("other.py:make_net", "other.py"),
        ("my_model.py:shapes", "changes the shape"),
    ],
)
def test_a_factory_that_gives_no_network_is_told_in_one_line(workplace: Path, name: str, says: str) -> None:
    done = in_process("convert", name, "--target-flops", "60%", "--junctions", "skip", cwd=workplace)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_checkpoint_of_ones_own_network_runs_no_file(workplace: Path) -> None:
    in_process("export", "runs/dense", "--out", "compact", cwd=workplace)
    done = in_process("predict", "compact", "grey.png", cwd=workplace)
    assert done.returncode == 2
    assert "is your own network" in done.stderr
