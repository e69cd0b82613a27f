"""The one place that prints: results to stdout, everything else to stderr."""

import json
import re
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

if TYPE_CHECKING:
    from routekit.training.log import Progress as TrainingProgress

# What is printed is text of others, too: nothing in it is a code for an emoji.
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
out = Console(highlight=False, soft_wrap=True, emoji=False)


def result(document: Any, text: str, *, as_json: bool) -> None:
    """Print the result of a command on stdout.

    Args:
        document: The result, for JSON.
        text: The result, for people.
        as_json: Whether the document is printed.
    """
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    else:
        out.print(plain(text), markup=False)


# The options for settings that sentences of the library name: `training.epochs`, or `junctions=skip`.
FLAGS = {
    "adaptive_cost": "--adaptive-cost",
    "aim.batch": "--batch",
    "aim.max_drop": "--max-drop",
    "aim.max_size": "--max-size",
    "aim.ms": "--target-ms",
    "aim.precision": "--precision",
    "aim.runtime": "--runtime",
    "aim.speedup": "--target-speedup",
    "aim.threads": "--threads",
    "aim.macs": "--target-flops",
    "data.download": "--download",
    "data.input_size": "--set data.input_size",
    "data.root": "--data-root",
    "data.source": "--data",
    "data.val": "--val",
    "data.val_from_test": "--val-from-test",
    "junctions.cascade.width": "--narrow",
    "junctions.exit.at": "--exits",
    "junctions.exit.rule": "--policy",
    "model.weights": "--weights",
    "routers.kind": "--router",
    "training.epochs": "--epochs",
    "training.gate": "--gate",
    "training.learning_rate": "--learning-rate",
}
# Likewise, but these are words as well: only with a value.
WORDS = {
    "device": "--device",
    "junctions": "--junctions",
    "method": "--method",
    "pruning": "--prune",
}
WORDS |= {"resume": "--resume", "smaller": "--smaller", "target": "--target-flops", "track": "--track"}
# And those of Python alone.
SAID = {"force=True": "--force", "verify=False": "--no-verify", "trust=True": "--trust"}
NAMED = re.compile(rf"(?<![.\w])(?:({'|'.join(map(re.escape, FLAGS))})(?![.\w])(=?)|({'|'.join(WORDS)})=)")


def in_flags(sentence: str) -> str:
    """Translate the settings that a sentence names to options: `junctions=skip` -> `--junctions skip`."""
    if sentence.startswith("recipe "):  # what is wrong in a file is named as there
        return sentence

    def flag(found: re.Match[str]) -> str:
        if found[3]:
            return f"{WORDS[found[3]]} "
        option = FLAGS[found[1]]
        return option + (("=" if option.startswith("--set") else " ") if found[2] else "")

    for said, option in SAID.items():
        sentence = sentence.replace(said, option)
    return NAMED.sub(flag, sentence)


# What a file or a class is called may hold codes for the terminal.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# More characters are no sentence.
LONGEST = 4000


def plain(text: str, longest: int | None = None) -> str:
    """Text without codes for the terminal, and not longer than people read."""
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]} ... ({len(text) - longest} characters more)"
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def say(sentence: str) -> None:
    """Print a sentence on stderr."""
    err.print(plain(in_flags(sentence[: 2 * LONGEST]), LONGEST), markup=False)


def working(sentence: str) -> AbstractContextManager[object]:
    """Show a sentence on a terminal for as long as the work takes; elsewhere nothing."""
    return err.status(sentence)


def warn(sentence: str) -> None:
    """Print a warning on stderr, in one line."""
    err.print(f"warning: {plain(in_flags(sentence[: 2 * LONGEST]), LONGEST)}", style="yellow", markup=False)


def fail(sentence: str) -> None:
    """Print an error on stderr, in one line."""
    sentence = in_flags(" ".join(sentence[: 2 * LONGEST].split()))
    err.print("error: " + plain(sentence, LONGEST), style="red", markup=False)


class TrainingDisplay:
    """The progress of training: a live bar on a terminal; elsewhere a line every few seconds."""

    LINE_EVERY_SECONDS = 15.0

    def __init__(self) -> None:
        # On a narrow terminal, only the details are cut: how far it is, and the time left, are always there.
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[detail]}", table_column=rest),
            console=err,
            disable=not err.is_terminal,
            expand=True,
        )
        self.task = self.bar.add_task("", visible=False, detail="")
        self.last = 0.0

    def __enter__(self) -> "TrainingDisplay":
        self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bar.stop()

    def __call__(self, progress: "TrainingProgress") -> None:
        """Show a step."""
        losses = " ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        detail = f"{progress.images_per_second:.0f} images/s  {losses}"
        if progress.phase != "train":  # where nothing learns to decide, no cost is steered
            detail = f"cost {100 * progress.realized:.1f}% (wanted {100 * progress.wanted:.1f}%)  {detail}"
        step, steps = progress.step, progress.steps
        if err.is_terminal:
            if step < self.bar.tasks[0].completed:  # another network is trained
                self.bar.reset(self.task)
            self.bar.update(
                self.task, description=progress.phase, completed=step, total=steps, detail=detail, visible=True
            )
        elif time.monotonic() - self.last >= self.LINE_EVERY_SECONDS or step == steps:
            self.last = time.monotonic()
            say(f"{progress.phase} {step}/{steps}  {detail}")
