"""Where a training is watched, beside its own log: TensorBoard and others, by the trackers of Accelerate."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from secrets import token_hex
from typing import Any

from accelerate import Accelerator

from routekit.documents import read_document
from routekit.errors import RoutekitError, reason
from routekit.files import own_folder, write_text
from routekit.manifest import note
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.training.log import flat
from routekit.training.state import load_state


@contextmanager
def tracked(accelerator: Accelerator, folder: RunFolder, plan: RunPlan) -> Iterator[None]:
    """Let the tracker of an accelerator know a run meanwhile, with its plan as hyperparameters.

    A run that goes on does so there, too: `<tracker>.id` in its folder holds under which name the tracker knows it.

    Args:
        accelerator: The accelerator. If it has no tracker, nothing is done.
        folder: The folder of the run.
        plan: The plan of the run.

    Yields:
        Once the tracker takes numbers by `accelerator.log`.

    Raises:
        InputError: Other files are where those of TensorBoard go.
        RoutekitError: The tracker does not take the run.
    """
    for tracker in accelerator.log_with if accelerator.is_main_process else []:
        _begin(accelerator, str(tracker), folder, plan)
    try:
        yield
    finally:
        # Not `end_training`: that parts processes which go on together.
        with redirect_stdout(sys.stderr):
            for tracker in accelerator.trackers:
                tracker.finish()


def _begin(accelerator: Accelerator, name: str, folder: RunFolder, plan: RunPlan) -> None:
    marker, files, state = folder.path / f"{name}.id", folder.path / "tensorboard", folder.path / "state.pt"
    known = read_document(marker).strip() if marker.exists() else None
    own = known or token_hex(4)
    outer = RunFolder(folder.path.absolute().parent)
    title = f"{outer.path.name}/{folder.path.name}" if outer.begun else folder.path.name
    # Steps that were done after the last saved state are done once more.
    repeated = {"purge_step": load_state(state)["step"] + 1} if name == "tensorboard" and state.exists() else {}
    options: dict[str, dict[str, Any]] = {
        "tensorboard": repeated,
        "wandb": {"id": own, "name": title, "resume": "allow"},
        "trackio": {"name": f"{title}-{own}", "resume": "allow"},
        "mlflow": {"run_id": known, "run_name": title},
    }
    if name == "tensorboard":
        own_folder(files, "tracking")
    project, before = "tensorboard" if name == "tensorboard" else "routekit", _within(files)
    settings = {
        setting: "" if value is None else value for setting, value in flat(plan.model_dump(mode="json"), ".").items()
    }
    try:
        with redirect_stdout(sys.stderr):  # what trackers print is not the result of the command
            accelerator.init_trackers(project, None if known else settings, {name: options[name]})
    except Exception as error:  # each tracker has errors of its own
        raise RoutekitError(f"{name} does not take this run: {reason(error)}; go on without track={name}") from error
    for file in sorted(_within(files) - before):  # they grow
        note(file, finished=False)
    if name == "mlflow":
        own = accelerator.get_tracker(name, unwrap=True).info.run_id
    write_text(marker, f"{own}\n")


def _within(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file()}
