"""`--track`: what a run writes into its log, a tracker is told, too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from routekit.pipeline.machine import Hooks, Machine
from routekit.pipeline.train import resume
from routekit.training.log import Progress, flat, read_metrics
from tests.cli.command import FAST, in_process

MADE = ["convert", "resnet20", "--data", "images", "--target-flops", "60%", "--junctions", "skip", "--device", "cpu"]
QUICK = [*MADE, "--weights", "runs/dense", "--epochs", "1", *FAST]


class Killed(Exception):
    """In the place of a kill."""


def killed_at(step: int) -> Callable[[Progress], None]:
    def look(progress: Progress) -> None:
        if progress.step == step:
            raise Killed

    return look


def told(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return found


def expected(run: Path, kind: str, *place: str) -> list[Any]:
    """The steps and the values of a line's field, as TensorBoard keeps them: in float32."""
    found = []
    for line in read_metrics(run / "metrics.jsonl"):
        if line["kind"] == kind:
            value: Any = line
            for key in place:
                value = value[key]
            found.append((line["step"], pytest.approx(value, rel=1e-6)))
    return found


def test_values_in_each_other_get_names() -> None:
    assert flat({"a": {"b": [1, {"c": 2}], "d": "x"}, "e": (), "f": None}, "/") == {
        "a/b/0": 1, "a/b/1/c": 2, "a/d": "x", "f": None,
    }  # fmt: skip


def test_tensorboard_gets_what_the_log_holds_also_of_the_dense_network_that_is_trained_first(workplace: Path) -> None:
    words = [*MADE, "--weights", "none", "--epochs", "1", *FAST, "--set", "dense.epochs=1", "--out", "tracked"]
    words += ["--name", "mine", "--track", "tensorboard"]
    for _ in range(2):  # what was told of the former run goes with it
        done = in_process(*words, "--force", "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run"] == "tracked/mine"
    run = workplace / "tracked" / "mine"
    for folder in (run, run / "dense"):
        found = told(folder)
        (event,) = (folder / "tensorboard").glob("events.*")
        for tag, place in (
            ("step/losses/classification", ("losses", "classification")),
            ("step/realized", ("realized",)),
            ("validation/accuracy", ("accuracy",)),
            ("validation/realized", ("realized",)),
        ):
            wanted = expected(folder, tag.split("/")[0], *place)
            assert [(each.step, each.value) for each in found.Scalars(tag)] == wanted
            assert wanted
        assert not [tag for tag in found.Tags()["scalars"] if "phase" in tag]  # words are no curve
        (settings,) = event.parent.glob("*/hparams.yml")
        assert yaml.safe_load(settings.read_text())["training.epochs"] == 1
    # A file of others there is never lost.
    (run / "tensorboard" / "mine.txt").write_text("mine")
    done = in_process(*words, "--force", cwd=workplace)
    assert (done.returncode, (run / "tensorboard" / "mine.txt").read_text()) == (2, "mine")
    assert "files that routekit did not write (tensorboard/mine.txt)" in done.stderr


def test_tensorboard_shows_no_step_twice_of_a_run_that_goes_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, words = workplace / "tracked" / "twice", ["--epochs", "2", "--track", "tensorboard"]
    with monkeypatch.context() as patch:
        # Step 6 is told, and not in the state, which is that after the first epoch, of four steps.
        patch.setattr("routekit_cli.carry_out.TrainingDisplay.__call__", lambda _, progress: killed_at(7)(progress))
        done = in_process(*QUICK, *words, "--out", "tracked", "--name", "twice", cwd=workplace)
        assert done.returncode == 1
        assert "Killed" in done.stderr
    assert [each.step for each in told(run).Scalars("step/realized")] == [2, 4, 6]
    done = in_process(
        "convert", "--resume", "tracked/twice", "--track", "tensorboard", "--device", "cpu", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    assert len([*(run / "tensorboard").glob("events.*")]) == 2
    assert len([*(run / "tensorboard").glob("*/hparams.yml")]) == 1
    found = [(each.step, each.value) for each in told(run).Scalars("step/realized")]
    assert found == expected(run, "step", "realized")
    assert [step for step, _ in found] == [2, 4, 6, 8]


class StandIn(GeneralTracker):
    """A tracker that remembers what it is told."""

    name, requires_logging_directory = "wandb", False
    every: ClassVar[list["StandIn"]] = []

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.project, self.options, self.settings, self.finished = project, options, dict[str, Any](), False
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.every.append(self)

    @property
    def tracker(self) -> Any:
        return type("Run", (), {"info": type("Info", (), {"run_id": "of-the-server"})})

    def start(self) -> None:
        print("a tracker greets")  # noqa: T201

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.lines.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], type[StandIn]]:
    def put(name: str) -> type[StandIn]:
        of_its_own = type(name, (StandIn,), {"name": name, "every": []})
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, of_its_own)
        monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType(name)])
        return of_its_own

    return put


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_other_trackers_know_a_run_that_goes_on(
    name: str, workplace: Path, stand_in: Callable[[str], type[StandIn]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, run = stand_in(name), workplace / "tracked" / name
    with monkeypatch.context() as patch:
        patch.setattr("routekit_cli.carry_out.TrainingDisplay.__call__", lambda _, progress: killed_at(3)(progress))
        done = in_process(*QUICK, "--track", name, "--out", "tracked", "--name", name, "--json", cwd=workplace)
    assert done.returncode == 1
    assert "a tracker greets" not in done.stdout
    (first,) = kind.every
    assert (first.project, first.finished) == ("routekit", True)
    assert first.settings["method"] == "routed"
    assert first.settings["training.batch_size"] == 16
    assert [step for step, _ in first.lines] == [2]
    monkeypatch.chdir(workplace)
    resume(run, Machine("cpu", Hooks(), track=name))
    _, second = kind.every
    own = (run / f"{name}.id").read_text().strip()
    assert (first.options, second.options) == {
        "wandb": 2 * ({"id": own, "name": name, "resume": "allow"},),
        "trackio": 2 * ({"name": f"{name}-{own}", "resume": "allow"},),
        # mlflow's server gives a run its name.
        "mlflow": ({"run_id": None, "run_name": name}, {"run_id": "of-the-server", "run_name": name}),
    }[name]
    assert second.settings == {}  # its tracker has them, and mlflow takes none twice
    lines = read_metrics(run / "metrics.jsonl")
    assert [step for step, _ in second.lines] == [line["step"] for line in lines]
    *_, (_, last) = second.lines
    assert last["validation/accuracy"] == lines[-1]["accuracy"]
    assert [last[f"validation/run_rate/{unit}"] for unit in range(9)] == lines[-1]["run_rate"]


def test_a_tracker_that_does_not_take_a_run_is_one_line(
    workplace: Path, stand_in: Callable[[str], type[StandIn]]
) -> None:
    def refuse(_: StandIn) -> None:
        raise ValueError("no key\nfor this server")

    stand_in("wandb").start = refuse  # type: ignore[method-assign]
    done = in_process(*QUICK, "--track", "wandb", "--out", "tracked", "--name", "refused", cwd=workplace)
    assert done.returncode == 1
    assert "error: wandb does not take this run: ValueError: no key; go on without --track wandb" in done.stderr


@pytest.mark.parametrize(("name", "says"), [("tensorbord", "tensorboard"), ("mlflow", "pip install mlflow")])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_tracker_that_is_not_there(
    name: str, says: str, more: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType.TENSORBOARD])
    done = in_process(*QUICK, *more, "--track", name, "--out", "tracked", "--name", "none", cwd=workplace)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (workplace / "tracked" / "none").exists()
