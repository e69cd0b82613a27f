"""The folder of a run: which files it holds, how it is opened, reopened, and protected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from routekit.errors import InputError, first_line
from routekit.files import check_folder, make_folder, write_text
from routekit.pipeline.run_plan import RunPlan

VERSION = 2
# What every run has from its beginning, and what runs of former versions had.
MARKER, FORMER = "run.yaml", "recipe.yaml"


@dataclass(frozen=True)
class RunFolder:
    """`run.yaml` (its plan), `metrics.jsonl`, `state.pt` (resumable), `network/`, `record.json`.

    A run that had to fine-tune its dense network first holds that run in `dense/`; one that is a cascade of smaller
    networks and its own holds the run of its own in `last/`.
    """

    path: Path

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.path / MARKER).exists()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.path / "record.json").exists()

    @property
    def dense(self) -> "RunFolder":
        """The run of the dense network inside this one."""
        return RunFolder(self.path / "dense")

    @property
    def last(self) -> "RunFolder":
        """The run of the network that comes last in a cascade, inside this one."""
        return RunFolder(self.path / "last")

    @staticmethod
    def check_free(path: Path, *, force: bool, needs: Sequence[Path] = ()) -> None:
        """Raise InputError if no run can be made at `path`, as `check_folder` says."""
        if (path / FORMER).exists() and not (path / MARKER).exists():
            raise InputError(f"{path} holds a run of routekit 0.1: choose another --name, or delete it")
        check_folder(path, "run", MARKER, force=force, needs=needs)

    @classmethod
    def create(cls, path: Path, plan: RunPlan, *, force: bool) -> "RunFolder":
        """Make the folder of a new run. Raises InputError as `check_free` does."""
        cls.check_free(path, force=force)
        make_folder(path, MARKER)
        text = f"# routekit run, version {VERSION}\n" + str(
            yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False)
        )
        write_text(path / MARKER, text)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", RunPlan]:
        """Open an existing run and its plan. Raises InputError: no run, damaged, or of another version."""
        marker = path / MARKER
        if not marker.exists() and (path / FORMER).exists():
            raise InputError(f"{path} is a run of routekit 0.1: make it again, or use it with that version")
        if not marker.exists():
            raise InputError(f"{path} is no run of routekit ({MARKER} is missing)")
        try:
            text = marker.read_text()
            if not text.startswith("# routekit run, version "):
                raise InputError(f"{marker} is damaged: it does not begin as routekit writes it; restore that file")
            if not text.startswith(f"# routekit run, version {VERSION}\n"):
                raise InputError(f"{path} was written by another version of routekit; start over with --force")
            return cls(path), RunPlan.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise InputError(f"{marker} is damaged: {first_line(error)}") from error
