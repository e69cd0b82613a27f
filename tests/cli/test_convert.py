"""`convert` and `evaluate`: what they report and write, also when they are interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from routekit.formats.checkpoint import load
from routekit.training.log import CLOCK_FIELDS, read_metrics
from tests.cli.command import COMMAND, ENVIRONMENT, FAST, in_process, routekit


def test_convert_reports_accuracy_cost_and_routes(workplace: Path) -> None:
    record = json.loads((workplace / "routed.json").read_text())
    assert record["model"] == "resnet20"
    assert set(record["accuracy"]) == {"dense", "routed"}
    assert {"dense", "target", "realized", "p5", "p50", "p95", "convention"} <= set(record["flops"])
    assert record["flops"]["target"] == pytest.approx(0.6 * record["flops"]["dense"])
    assert {"unique", "mean_units", "units"} <= set(record["routes"])
    assert record["routes"]["units"] == 9
    assert record["seconds"] > 0
    assert {"date", "device", "threads", "torch", "routekit", "command"} == set(record["environment"])
    assert record["environment"]["command"].startswith("routekit convert ")


def test_a_run_folder_holds_plan_metrics_state_network_and_record(workplace: Path) -> None:
    run = workplace / "runs" / "routed"
    assert {file.name for file in run.iterdir()} == {
        "run.yaml",
        "metrics.jsonl",
        "routekit.json",
        "state.pt",
        "network",
        "record.json",
    }
    names = {"network.json", "network.safetensors", "routekit.json"}
    assert {file.name for file in (run / "network").iterdir()} == names
    phases = [line["phase"] for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "step"]
    assert phases == sorted(phases, key=["route", "hard"].index)
    assert set(phases) == {"route", "hard"}


def test_what_is_wrong_with_the_result_is_said_at_once(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 0,
        "--junctions", "exit", "--name", "untrained", *FAST, cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert any("off its target" in line for line in told)
    assert any("All images, or nearly all, go on past layer1.1" in line for line in told)


def test_evaluate_measures_the_same_again(workplace: Path) -> None:
    done = routekit("evaluate", "runs/routed", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record, before = json.loads(done.stdout), json.loads((workplace / "routed.json").read_text())
    for key in ("accuracy", "flops", "routes"):
        assert record[key] == before[key]
    assert 0 <= record["shuffled_accuracy"] <= 1


def test_text_output_names_the_convention_and_the_2x_figure(workplace: Path) -> None:
    done = in_process("evaluate", "runs/routed", cwd=workplace)
    assert "as 2xMAC" in done.stdout
    assert "1 multiply-add = 1 FLOP" in done.stdout


def test_a_static_method_runs_through_the_same_command(workplace: Path) -> None:
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 1,
        "--method", "distributedk", *FAST, "--json", cwd=workplace,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["routes"]["unique"] == 1
    # Nothing is decided: units that are dropped have no columns.
    assert record["routes"]["run_rate"] == {}
    assert 0 < record["routes"]["mean_units"] < record["routes"]["units"] == 9


def test_a_pruned_network_is_compared_with_the_dense_one(workplace: Path) -> None:
    stacked = ["--prune", "l1:70%", "--junctions", "skip"]
    for name, options, least in (("pruned", ["--method", "depgraph"], 0.47), ("stacked", stacked, 0.2)):
        done = in_process(
            "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "50%",
            "--epochs", 1, "--name", name, *options, *FAST, "--json", cwd=workplace,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["flops"]["dense"] == json.loads((workplace / "routed.json").read_text())["flops"]["dense"]
        assert record["flops"]["target"] == 0.5 * record["flops"]["dense"]
        assert least < record["flops"]["realized"] / record["flops"]["dense"] < 0.7
        again = in_process("evaluate", f"runs/{name}", "--json", cwd=workplace)
        assert json.loads(again.stdout)["flops"] == record["flops"]


def test_interrupted_then_resumed_is_the_uninterrupted_run(workplace: Path) -> None:
    arguments = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "4",
        "--junctions", "skip", *FAST, "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--name", "killed"], cwd=workplace, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores Ctrl-C, and so does what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    state = workplace / "runs" / "killed" / "state.pt"
    assert process.stderr is not None
    # The first progress line comes with the first step; the state with the end of the first epoch.
    while process.poll() is None and not state.exists():
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert "go on with `routekit convert --resume runs/killed`" in errors
    assert "Traceback" not in errors
    done = in_process("convert", "--resume", "runs/killed", "--device", "cpu", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr

    def lines(run: str) -> list[dict]:
        metrics = read_metrics(workplace / "runs" / run / "metrics.jsonl")
        return [{key: value for key, value in line.items() if key not in CLOCK_FIELDS} for line in metrics]

    assert lines("killed") == lines("routed")
    record, before = json.loads(done.stdout), json.loads((workplace / "routed.json").read_text())
    assert record["accuracy"] == before["accuracy"]
    assert record["flops"] == before["flops"]


def test_what_has_learned_nothing_yet_is_not_frozen(workplace: Path) -> None:
    """By default the network stays as it is beside its narrow form; one that is trained from scratch cannot."""
    stems = []
    for epochs in (0, 1):
        done = in_process(
            "convert", "resnet20", "--weights", "none", "--data", "images", "--target-flops", "60%", "--epochs", epochs,
            "--set", "dense.epochs=0", "--set", "training.batch_size=16", "--name", f"scratch{epochs}", cwd=workplace,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        network = load(workplace / "runs" / f"scratch{epochs}")
        assert [step.name for step in network.stops] == ["narrow"]
        stems.append(network.view.stem(torch.ones(1, 3, 32, 32)))
    assert not torch.equal(*stems)


def test_two_processes_train_one_network(workplace: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "routekit_cli.main"]
    arguments = [
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "1",
        "--junctions", "skip", *FAST, "--name", "launched", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *arguments], cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads(done.stdout)
    assert record["images"] == 36
    steps = [line for line in read_metrics(workplace / "runs" / "launched" / "metrics.jsonl") if line["kind"] == "step"]
    assert steps[-1]["step"] == 4  # 72 images in batches of 16 over both processes
    assert record["environment"]["processes"] == 2
    one = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
         "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "routekit_cli.main", *arguments, "--force"],
        cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert one.returncode != 0
    assert "several processes were asked for, and one came" in one.stderr
    assert (workplace / "runs" / "launched" / "record.json").exists()


def test_resuming_a_finished_run_reports_it_again(workplace: Path) -> None:
    done = in_process("convert", "--resume", "runs/routed", "--json", cwd=workplace)
    assert json.loads(done.stdout) == json.loads((workplace / "routed.json").read_text())


def test_an_existing_run_is_not_overwritten_without_force(workplace: Path) -> None:
    before = (workplace / "runs" / "routed" / "record.json").read_bytes()
    done = in_process(
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
