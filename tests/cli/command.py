"""The command as a user runs it, and images for it."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

COMMAND = [sys.executable, "-m", "routekit_cli.main"]
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
FAST = [
    *("--set", "training.batch_size=16", "--set", "training.check_every=2", "--set", "training.check_images=12"),
    *("--set", "training.hard=0.5"),
]
# A benchmark of no length: what it says, and not how fast.
BENCH = ["--runtime", "torch", "--no-compile", "--images", "4", "--seconds", "0", "--threads", "1", "--json"]


def routekit(*arguments: object, cwd: Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


def in_process(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same without a new process, which would import torch again: for what follows a first real call."""
    from routekit_cli.main import call

    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = call([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


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
