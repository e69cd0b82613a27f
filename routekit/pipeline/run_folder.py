"""The folder of a run: which files it holds, how it is opened, reopened, and protected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from routekit.documents import parse_yaml, read_document, to_yaml
from routekit.errors import InputError, first_line
from routekit.files import check_folder, make_folder, write_text
from routekit.manifest import MANIFEST, verify
from routekit.pipeline.run_plan import RunPlan
from routekit.recipe import DataSection

HEADER = "# routekit run, version 2\n"
# What every run has from its beginning, and what runs of former versions had.
MARKER, FORMER = "run.yaml", "recipe.yaml"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: `run.yaml` (its plan), `metrics.jsonl`, `state.pt` (to resume), `network/`, `record.json`.

    A run that trains its dense network first holds that run in `dense/`. A cascade of smaller networks and an own one
    holds the run of its own network in `last/`. A ladder holds its forms in `forms/`, with their files for other
    runtimes, their answers and times, and in `passes/` those that were chosen, for onnxruntime and OpenVINO.
    What a tracker needs is in `tensorboard/`, and `<tracker>.id` (`pipeline.track`).
    """

    path: Path

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.path / MARKER).exists()

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "record.json").exists()

    @property
    def dense(self) -> "RunFolder":
        """The run of the dense network inside this one."""
        return RunFolder(self.path / "dense")

    @property
    def last(self) -> "RunFolder":
        """The run of the network that comes last in a cascade, inside this one."""
        return RunFolder(self.path / "last")

    @property
    def forms(self) -> Path:
        """The forms of a ladder."""
        return self.path / "forms"

    @property
    def passes(self) -> Path:
        """The chosen passes of a ladder, as files of other runtimes."""
        return self.path / "passes"

    @staticmethod
    def check_free(path: Path, *, force: bool, needs: Sequence[Path] = ()) -> None:
        """Check that a run can be made at a path.

        Args:
            path: The folder of the new run.
            force: Whether an old run there is replaced.
            needs: Files and folders that the new run needs.

        Raises:
            InputError: No run can be made there (`check_folder`).
        """
        if (path / FORMER).exists() and not (path / MANIFEST).exists():
            raise InputError(f"{path} holds a run of routekit 0.1, perhaps: choose another folder, or delete it")
        check_folder(path, "run", force=force, needs=needs)

    @classmethod
    def create(cls, path: Path, plan: RunPlan, *, force: bool) -> "RunFolder":
        """Make the folder of a new run.

        Args:
            path: The folder.
            plan: The plan of the run.
            force: Whether an old run there is replaced.

        Returns:
            The folder, which holds the plan.

        Raises:
            InputError: No run can be made there (`check_free`).
        """
        cls.check_free(path, force=force)
        make_folder(path, "run")
        cls(path).write(plan)
        return cls(path)

    def write(self, plan: RunPlan) -> None:
        """Write the plan of the run. Raises RoutekitError: it cannot be written."""
        write_text(self.path / MARKER, HEADER + to_yaml(plan.model_dump(mode="json")))

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", RunPlan]:
        """Open an existing run and its plan. Raises InputError: no run, damaged, or of another version."""
        marker = path / MARKER
        if not marker.exists() and (path / FORMER).exists():
            raise InputError(f"{path} is a run of routekit 0.1: make it again, or use it with that version")
        if not marker.exists():
            raise InputError(f"{path} is no run of routekit ({MARKER} is missing)")
        verify(marker)
        try:
            text = read_document(marker)
            if not text.startswith("# routekit run, version "):
                raise InputError(f"{marker} is damaged: it does not begin as routekit writes it; restore that file")
            if not text.startswith(HEADER):
                raise InputError(f"{path} was written by another version of routekit; start over with force=True")
            return cls(path), RunPlan.model_validate(parse_yaml(text)[0])
        except (yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{marker} is damaged: {first_line(error)}") from error


def plan_at(path: Path) -> RunPlan | None:
    """The plan of the run at a path; None if there is no run, for example a checkpoint. Raises InputError: damaged."""
    return RunFolder.open(path)[1] if (path / MARKER).exists() else None


def images_for(path: Path, given: DataSection | None) -> DataSection:
    """Which images the network at a path is used on.

    Args:
        path: A run or a checkpoint.
        given: The images that the user gave; None for those of the run.

    Returns:
        The images.

    Raises:
        InputError: None are given, and the path holds no run, or a damaged one.
    """
    if given is not None:
        return given
    plan = plan_at(path)
    if plan is None:
        raise InputError(f"{path} is no run with a plan: say which images with data.source")
    return plan.data
