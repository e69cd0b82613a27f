"""The folder of a run: which files it holds, how it is opened, reopened, and protected."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from routekit.errors import InputError
from routekit.recipe import Recipe
from routekit.training.state import write_atomically

VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """`recipe.yaml` (resolved), `metrics.jsonl`, `state.pt` (resumable), `network/`, `record.json`.

    A run that had to fine-tune its dense network first holds that run in `dense/`; one that is a cascade of smaller
    networks and its own holds the run of its own in `last/`.
    """

    path: Path

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.path / "recipe.yaml").exists()

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
        """Raise InputError if `path` holds a run already and `force` is off, or something else, or cannot be made.

        What the new run `needs` must not lie in the old one.
        """
        marker = path / "recipe.yaml"
        for needed in needs:
            if needed.exists() and path.resolve() in (needed.resolve(), *needed.resolve().parents):
                raise InputError(f"{path} would be made of {needed}, which is in it: choose another --out or --name")
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file: choose another --out")
        if marker.exists() and not force:
            raise InputError(f"{path} holds a run: go on with --resume {path}, or start over with --force")
        if path.exists() and not marker.exists() and any(path.iterdir()):
            raise InputError(f"{path} holds other files: choose another --out or --name")
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(f"cannot write to {path}: {there} is no folder that can be written to")

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, force: bool) -> "RunFolder":
        """Make the folder of a new run. Raises InputError as `check_free` does."""
        cls.check_free(path, force=force)
        marker = path / "recipe.yaml"
        try:
            if marker.exists():
                shutil.rmtree(path)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {path}: {error.strerror}") from error
        text = f"# routekit run, version {VERSION}\n" + recipe.to_yaml()
        write_atomically(marker, lambda stream: stream.write(text.encode()))
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> tuple["RunFolder", Recipe]:
        """Open an existing run and its recipe. Raises InputError: no run, damaged, or of another version."""
        marker = path / "recipe.yaml"
        if not marker.exists():
            raise InputError(f"{path} is no run of routekit (recipe.yaml is missing)")
        try:
            text = marker.read_text()
            if not text.startswith(f"# routekit run, version {VERSION}\n"):
                raise InputError(f"{path} was written by another version of routekit; start over with --force")
            return cls(path), Recipe.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise InputError(f"{marker} is damaged: {str(error).splitlines()[0]}") from error
