"""The command line as a user runs it: real processes, real files."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from routekit.training.log import CLOCK_FIELDS, read_metrics

COMMAND = [sys.executable, "-m", "routekit_cli.main"]
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
FAST = [
    *("--set", "training.batch_size=16", "--set", "training.check_every=2", "--set", "training.check_images=12"),
    *("--set", "training.hard=0.5"),
]


def routekit(*arguments: object, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


def write_tree(root: Path, classes: int = 3, train: int = 24, size: int = 32) -> Path:
    """An ImageFolder tree whose classes differ in colour."""
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("val", 12), ("test", 12)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (size, size, 3))
                pixels[:, :, label % 3] += 100 if label < 3 else 50
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a fine-tuned dense network, and a routed one made from it."""
    folder = tmp_path_factory.mktemp("work")
    write_tree(folder / "images")
    done = routekit(
        "finetune",
        "resnet20",
        "--weights",
        "none",
        "--data",
        "images",
        "--epochs",
        1,
        "--name",
        "dense",
        *FAST,
        "--json",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    done = routekit(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 2,
        "--name", "routed", *FAST, "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "routed.json").write_text(done.stdout)
    return folder


def test_convert_reports_accuracy_cost_and_routes(workplace: Path) -> None:
    record = json.loads((workplace / "routed.json").read_text())
    assert record["model"] == "resnet20"
    assert set(record["accuracy"]) == {"dense", "routed"}
    assert {"dense", "target", "realized", "p5", "p50", "p95", "convention"} <= set(record["flops"])
    assert record["flops"]["target"] == pytest.approx(0.6 * record["flops"]["dense"])
    assert {"unique", "mean_units", "units"} <= set(record["routes"])
    assert record["routes"]["units"] == 9
    assert record["seconds"] > 0
    assert {"date", "device", "threads", "torch", "routekit"} == set(record["environment"])


def test_a_run_folder_holds_recipe_metrics_state_network_and_record(workplace: Path) -> None:
    run = workplace / "runs" / "routed"
    assert {file.name for file in run.iterdir()} == {
        "recipe.yaml",
        "metrics.jsonl",
        "state.pt",
        "network",
        "record.json",
    }
    assert {file.name for file in (run / "network").iterdir()} == {"network.json", "network.safetensors"}
    phases = [line["phase"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "step"]
    assert phases == sorted(phases, key=["route", "hard"].index)
    assert set(phases) == {"route", "hard"}


def test_evaluate_measures_the_same_again(workplace: Path) -> None:
    done = routekit("evaluate", "runs/routed", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record, before = json.loads(done.stdout), json.loads((workplace / "routed.json").read_text())
    for key in ("accuracy", "flops", "routes"):
        assert record[key] == before[key]
    assert 0 <= record["shuffled_accuracy"] <= 1


def test_an_exported_file_is_verified_and_predicts_as_the_run_does(workplace: Path) -> None:
    done = routekit(
        "export", "runs/routed", "--format", "onnx", "--out", "onnx", "--verify", "images/test", "--json", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {name: found["images"] for name, found in report["verified"].items()} == {
        "single.onnx": 36,
        "batch.onnx": 36,
    }
    said = []
    for model in ("runs/routed", "onnx", "onnx/single.onnx"):
        done = routekit("predict", model, "images/test/class1", "--top", 2, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout)["images"])
        assert len(said[-1]) == 12
        assert [len(image["top"]) for image in said[-1]] == [2] * 12
    for image, *others in zip(*said, strict=True):
        for other in others:
            assert other["units"] == image["units"]
            assert other["top"][0]["class"] == image["top"][0]["class"]
            assert other["flops"] == image["flops"]
    done = routekit("predict", "runs/routed", "images/test/class1/0.png", cwd=workplace)
    assert re.fullmatch(
        r"images/test/class1/0\.png: class\d [\d.]+%  \(\d of 9 units, \d+% of the MACs\)\n", done.stdout
    )


def test_a_benchmark_reports_rows_a_picture_and_a_page(workplace: Path) -> None:
    done = routekit(
        "bench", "runs/routed", "--runtime", "torch", "--batch", "1,4", "--images", 8, "--seconds", 0,
        "--no-compile", "--threads", 1, "--picture", "chart.svg", "--html", "bench.html", "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["runtime"], row["batch"]) for row in report["rows"]] == [("torch", 1), ("torch", 4)]
    for row in report["rows"]:
        assert {"runtime", "device", "batch", "dense_ms", "routed_ms", "speedup", "ideal", "efficiency"} <= set(row)
    assert report["environment"]["threads"] == 1
    assert (workplace / "chart.svg").read_text().lstrip().startswith("<?xml")
    assert "<table>" in (workplace / "bench.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "runs/routed", "--format", "tflite", "--out", "x"], "compact, onnx, openvino, torch"),
        (["export", "runs/routed", "--format", "onnx", "--out", "images"], "--force"),
        (
            ["export", "runs/routed", "--format", "onnx", "--out", "x", "--dtype", "float16"],
            "--dtype is for the compact",
        ),
        (["export", "runs/routed", "--out", "x", "--verify", "images"], "--verify is for the other formats"),
        (["export", "runs/routed", "--format", "onnx", "--out", "x", "--verify", "empty"], "has no images"),
        (["predict", "runs/routed", "empty"], "has no images"),
        (["predict", "runs/routed", "broken.png"], "broken.png"),
        (["predict", "runs/routed", "absent.png"], "absent.png"),
        (["predict", "broken.png", "images"], "neither a run, a checkpoint nor an exported file"),
        (["bench", "runs/routed", "--batch", "0"], "'0' is no batch size"),
        (["bench", "runs/routed", "--batch", ","], "at least one runtime and one batch size"),
        (["bench", "runs/routed", "--threads", "4096"], "this machine has"),
        (["bench", "runs/routed", "--runtime", "tensort"], "tensort"),
        (["bench", "runs/routed", "--run-rate", "30%"], "a run has its own routes"),
        (["bench", "resnet20"], "--run-rate 30%"),
        (["bench", "runs/routed", "--picture", "chart.gif", "--batch", "1", "--seconds", "0"], ".png or .svg"),
    ],
)
def test_bad_input_to_export_predict_and_bench(workplace: Path, arguments: list[str], says: str) -> None:
    (workplace / "empty").mkdir(exist_ok=True)
    (workplace / "broken.png").write_bytes(b"no picture")
    done = routekit(*arguments, cwd=workplace)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (workplace / "x").exists()


def test_export_then_evaluate_the_compact_checkpoint(workplace: Path) -> None:
    done = routekit("export", "runs/routed", "--out", "compact", "--dtype", "float16", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["folded"] > 0
    assert report["bytes"]["compact"] < 0.7 * report["bytes"]["run"]
    again = routekit("export", "runs/routed", "--out", "compact", cwd=workplace)
    assert again.returncode == 2
    assert "--force" in again.stderr
    done = routekit("evaluate", "compact", "--data", "images", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 36


def test_text_output_names_the_convention_and_the_2x_figure(workplace: Path) -> None:
    done = routekit("evaluate", "runs/routed", cwd=workplace)
    assert "as 2xMAC" in done.stdout
    assert "1 multiply-add = 1 FLOP" in done.stdout


def test_a_static_method_runs_through_the_same_command(workplace: Path) -> None:
    done = routekit(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 1,
        "--method", "distributedk", *FAST, "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["routes"]["unique"] == 1
    assert 0 < sum(record["routes"]["run_rate"].values()) < 9


def test_interrupted_then_resumed_is_the_uninterrupted_run(workplace: Path) -> None:
    arguments = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "2",
        *FAST, "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--name", "killed"], cwd=workplace, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    state = workplace / "runs" / "killed" / "state.pt"
    assert process.stderr is not None
    # The first progress line comes with the first step; the state with the end of the first epoch.
    while process.poll() is None and not state.exists():
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert "Traceback" not in errors
    done = routekit("convert", "--resume", "runs/killed", "--device", "cpu", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr

    def lines(run: str) -> list[dict]:
        metrics = read_metrics(workplace / "runs" / run / "metrics.jsonl")
        return [{key: value for key, value in line.items() if key not in CLOCK_FIELDS} for line in metrics]

    assert lines("killed") == lines("routed")
    record, before = json.loads(done.stdout), json.loads((workplace / "routed.json").read_text())
    assert record["accuracy"] == before["accuracy"]
    assert record["flops"] == before["flops"]


def test_two_processes_train_one_network(workplace: Path) -> None:
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "routekit_cli.main"]
    arguments = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "1",
        *FAST, "--name", "launched", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *arguments], cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)
    assert record["images"] == 36
    steps = [line for line in read_metrics(workplace / "runs" / "launched" / "metrics.jsonl") if line["kind"] == "step"]
    assert steps[-1]["step"] == 4  # 72 images in batches of 16 over both processes


def test_resuming_a_finished_run_reports_it_again(workplace: Path) -> None:
    done = routekit("convert", "--resume", "runs/routed", "--json", cwd=workplace)
    assert json.loads(done.stdout) == json.loads((workplace / "routed.json").read_text())


def test_flops_and_models_as_json(tmp_path: Path) -> None:
    table = json.loads(routekit("flops", "resnet56", "--json", cwd=tmp_path).stdout)
    assert table["total"] == sum(part["flops"] for part in table["parts"])
    assert {"name", "kind", "flops", "skippable"} == set(table["parts"][0])
    assert "1 multiply-add = 1 FLOP" in table["convention"]
    assert sum(part["skippable"] for part in table["parts"]) == 27
    models = json.loads(routekit("models", "--json", cwd=tmp_path).stdout)["models"]
    assert {"cifar", "timm", "torchvision"} == {entry["source"] for entry in models}


BAD = [
    (["convert", "resnet65", "--target-flops", "50%"], "did you mean"),
    (["convert", "resnet20"], "--target-flops"),
    (["convert", "--target-flops", "50%"], "which network"),
    (["convert", "resnet20", "--target-flops", "1%"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "120%"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "much"], "is no cost"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "nowhere"], "nowhere"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "images", "--weights", "no.th"], "no.th"),
    (["convert", "resnet20", "--target-flops", "50%", "--epochs", "-1"], "epochs"),
    (["convert", "resnet20", "--target-flops", "50%", "--method", "fristk"], "method"),
    (["convert", "resnet20", "--target-flops", "50%", "--gate", "sft"], "gate"),
    (["convert", "resnet20", "--target-flops", "50%", "--recipe", "drm"], "did you mean drn"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "training.lr=1"], "training"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "oops"], "key=value"),
    (["convert", "resnet20", "--target-flops", "50%", "--device", "tpu"], "device"),
    (["convert", "resnet20", "--target-flops", "50%", "--val-from-test", "140%"], "140%"),
    (["convert", "resnet20", "--target-flop", "50%"], "--target-flop"),
    (["convert", "--resume", "nowhere"], "no run of routekit"),
    (["convert", "resnet20", "--target-flops", "50%", "--out", "file.txt/x", "--data", "images"], "file.txt"),
    (["finetune"], "which network"),
    (["evaluate", "nowhere"], "does not exist"),
    (["evaluate", "images"], "images"),
    (["export", "nowhere", "--out", "x"], "nowhere"),
    (["export", "images", "--out", "x", "--format", "exe"], "unknown format"),
    (["export", "images", "--out", "x", "--dtype", "int3"], "unknown dtype"),
    (["flops", "resnet65"], "did you mean"),
    (["convrt"], "convrt"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from routekit_cli.main import call

    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "images", train=2)
    (tmp_path / "file.txt").write_text("a file")
    assert call(arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1, captured.err
    assert errors[0].startswith("error: ")
    assert says in errors[0]
    assert "Traceback" not in captured.err
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_damaged_and_foreign_files(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.th").write_bytes(b"\x80\x02torn")
    torn = ["convert", "resnet20", "--target-flops", "50%", "--data", workplace / "images", "--weights", "torn.th"]
    done = routekit(*torn, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "torn.th" in done.stderr
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "recipe.yaml").write_text("# routekit run, version 0\nmethod: routed\n")
    done = routekit("convert", "--resume", "old", cwd=tmp_path)
    assert done.returncode == 2
    assert "another version" in done.stderr


def test_an_existing_run_is_not_overwritten_without_force(workplace: Path) -> None:
    before = (workplace / "runs" / "routed" / "record.json").read_bytes()
    done = routekit(
        "convert",
        "resnet20",
        "--weights",
        "runs/dense",
        "--data",
        "images",
        "--target-flops",
        "60%",
        "--name",
        "routed",
        cwd=workplace,
    )
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert "--resume" in done.stderr
    assert (workplace / "runs" / "routed" / "record.json").read_bytes() == before


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", train=2)
    (tmp_path / "images" / "test" / "class1" / "3.png").write_bytes(b"no image")
    done = routekit("finetune", "resnet20", "--weights", "none", "--data", "images", "--epochs", 0, cwd=tmp_path)
    assert done.returncode == 2
    assert str(Path("test", "class1", "3.png")) in done.stderr


def test_a_network_of_other_classes_is_refused(workplace: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "four", classes=4, train=2)
    done = routekit(
        "convert",
        "resnet20",
        "--weights",
        workplace / "runs" / "dense",
        "--data",
        "four",
        "--target-flops",
        "60%",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "3 classes, the data has 4" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = routekit("evaluate", "nowhere", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")


def test_help_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['routekit', 'convert', '--help']\n"
        "try:\n  from routekit_cli.main import run; run()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "--target-flops" in done.stdout
