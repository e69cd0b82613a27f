"""The one place that prints: results to stdout, everything else to stderr."""

import json
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from routekit.training.log import Progress as TrainingProgress

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


def result(document: Any, text: str, *, as_json: bool) -> None:
    """Print a command's result: one JSON document, or text for people."""
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    else:
        out.print(text, markup=False)


def say(sentence: str) -> None:
    """Tell the user something."""
    err.print(sentence, markup=False)


def working(sentence: str) -> AbstractContextManager[object]:
    """Say on a terminal that something is going on, for as long as it does; elsewhere nothing."""
    return err.status(sentence)


def warn(sentence: str) -> None:
    """Warn the user, in one line."""
    err.print(f"warning: {sentence}", style="yellow", markup=False)


def fail(sentence: str) -> None:
    """Say what went wrong, in one line."""
    err.print("error: " + " ".join(sentence.split()), style="red", markup=False)


class TrainingDisplay:
    """A live bar on a terminal; elsewhere a line every few seconds."""

    LINE_EVERY_SECONDS = 15.0

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} steps  {task.fields[detail]}"),
            TimeRemainingColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self.task: TaskID | None = None
        self.steps = 0
        self.last = 0.0

    def __enter__(self) -> "TrainingDisplay":
        self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bar.stop()

    def __call__(self, progress: "TrainingProgress") -> None:
        """Show a step."""
        losses = " ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        cost = f"cost {100 * progress.realized:.1f}% (wanted {100 * progress.wanted:.1f}%)"
        detail = f"{losses}  {cost}  {progress.images_per_second:.0f} images/s"
        if err.is_terminal:
            if self.task is None or self.steps != progress.steps or progress.step < self.last:
                if self.task is not None:
                    self.bar.remove_task(self.task)
                self.task = self.bar.add_task(progress.phase, total=progress.steps, detail="")
                self.steps = progress.steps
            self.bar.update(self.task, description=progress.phase, completed=progress.step, detail=detail)
            self.last = progress.step
            return
        now = time.monotonic()
        if now - self.last >= self.LINE_EVERY_SECONDS or progress.step == progress.steps:
            self.last = now
            say(f"{progress.phase} {progress.step}/{progress.steps}  {detail}")
