"""A small workplace with everything that commands read, and what must be true whatever they are given."""

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.cli.command import in_process

# A run of each kind is made once, as users make it.
SMALL = ("--set", "data.input_size=16", "--set", "training.batch_size=16", "--set", "training.precision=fp32")
# Seconds after which a command, or the opening of a file, is a hang.
PATIENCE = 10


@dataclass
class Finding:
    """What must not happen, and did."""

    kind: str
    what: str
    said: str = ""


@dataclass
class Tally:
    """How many cases were tried, and what was found.

    Attributes:
        cases: The number of cases.
        refused: How many were refused in one line.
        findings: What must not happen.
    """

    cases: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(self.cases + other.cases, self.refused + other.refused, [*self.findings, *other.findings])

    @property
    def counts(self) -> dict[str, int]:
        """The number of findings by kind."""
        kinds = [each.kind for each in self.findings]
        return {kind: kinds.count(kind) for kind in sorted({*kinds})}


def make_place(folder: Path) -> Path:
    """Images, a dense network, a cascade, its exports, and a recipe, in a folder."""
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        for label in range(3):
            here = folder / "images" / split / f"class{label}"
            here.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 120, (16, 16, 3))
                pixels[:, :, label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(here / f"{index}.png")
    start = ("resnet20", "--weights", "none", "--data", "images", "--epochs", 1, *SMALL)
    done(folder, "finetune", *start, "--name", "dense")
    routed = ("resnet20", "--weights", "runs/dense", "--data", "images", "--epochs", 1, *SMALL)
    done(folder, "convert", *routed, "--target-flops", "60%", "--junctions", "cascade", "--name", "cascade")
    done(folder, "export", "runs/cascade", "--out", "compact")
    done(folder, "export", "runs/cascade", "--out", "onnx", "--format", "onnx")
    done(folder, "export", "runs/cascade", "--out", "passes", "--format", "passes")
    done(folder, "recipes", "copy", "default", "mine.yaml")
    (folder / "thesis.txt").write_text("three years")
    return folder


def done(folder: Path, *arguments: object) -> None:
    """Run a command that has to work."""
    found = in_process(*arguments, cwd=folder)
    assert found.returncode == 0, f"{arguments}: {found.stderr}"


def fingerprint(folder: Path) -> dict[str, str]:
    """The digest of every file in a folder."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class Hang(BaseException):
    """Something took longer than `PATIENCE`. No handler of exceptions catches it."""


@contextmanager
def patience(seconds: int = PATIENCE) -> Iterator[None]:
    """Raise Hang if what is done takes too long."""

    def too_long(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
