"""`--track`: what a run writes into its log, a tracker is told, too."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.command import FAST, in_process

QUICK = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "1"]


def test_a_tracker_is_told_what_the_log_holds(workplace: Path) -> None:
    words = [*QUICK, "--junctions", "skip", *FAST, "--track", "tensorboard", "--out", "followed", "--name", "mine"]
    done = in_process(*words, cwd=workplace)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (workplace / "followed/mine/metrics.jsonl").read_text().splitlines()]
    (events,) = (workplace / "followed" / "tracking" / "mine").glob("events.out.tfevents.*")
    told = EventAccumulator(str(events.parent))
    told.Reload()
    for kind, tag, of in (
        ("step", "step/losses/classification", lambda line: line["losses"]["classification"]),
        ("validation", "validation/accuracy", lambda line: line["accuracy"]),
    ):
        wanted = [(line["step"], pytest.approx(of(line), rel=1e-6)) for line in lines if line["kind"] == kind]
        assert wanted
        assert [(event.step, event.value) for event in told.Scalars(tag)] == wanted
    # The files of a tracker are no part of the run: it can be started over.
    done = in_process(*words, "--force", "--dry-run", cwd=workplace)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "says"), [("tensorbord", "tensorboard"), ("mlflow", "pip install mlflow")])
def test_a_tracker_that_is_not_there(name: str, says: str, workplace: Path) -> None:
    done = in_process(*QUICK, *FAST, "--track", name, "--out", "followed", "--name", "none", cwd=workplace)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (workplace / "followed" / "none").exists()
