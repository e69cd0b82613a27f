"""A cascade whose passes are plain dense graphs, in any runtime: the program between them."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from routekit.backbones.unit import Backbone
from routekit.errors import InputError
from routekit.execution.executor import Answer
from routekit.formats.description import Description, Section
from routekit.formats.sections import NEXT
from routekit.formats.triton_model import CERTAINTIES, combined, softmax
from routekit.registry import nearest
from routekit.runtime.pass_files import OPENERS, open_files
from routekit.runtime.pass_modules import open_modules
from routekit.runtime.runtime import Pass


def open_passes(
    path: Path,
    runtime: str = "onnx",
    *,
    batch: int | None = None,
    threads: int = 0,
    precisions: Sequence[str] | None = None,
    compiled: bool = False,
    model: Callable[[], Backbone] | None = None,
) -> "PassesRuntime":
    """Open the passes of a cascade, or of a static network, each as a dense network.

    Args:
        path: For "onnx" and "openvino" a folder of `pass-*.onnx`, in any precision, or one of the files; for "torch" a
            run or a checkpoint in which only rules at stops decide.
        runtime: "onnx", "openvino" or "torch".
        batch: The number of images in every call, if that is known: the first pass is planned for it.
        threads: The number of threads; 0 for the runtime's choice.
        precisions: For "torch", of each pass "fp32" or "bf16"; by default all in float32.
        compiled: For "torch", whether passes are compiled where that works. That takes a minute.
        model: For "torch", what makes the user's own network from which the passes were made.

    Returns:
        What answers images.

    Raises:
        InputError: The path does not hold such passes, the runtime is unknown or not installed, or it does not take
            these options.
    """
    if runtime == "torch":
        return PassesRuntime(
            *open_modules(path, batch=batch, threads=threads, precisions=precisions, compiled=compiled, model=model)
        )
    if runtime not in OPENERS:
        raise InputError(f"unknown runtime {runtime!r}: {nearest(runtime, ['torch', *OPENERS])}")
    if precisions is not None or compiled:
        raise InputError(f"{runtime} runs files as they are: precisions and compiled are for torch")
    return PassesRuntime(*open_files(path, runtime, batch=batch, threads=threads))


class PassesRuntime:
    """Runs one pass after the other, each on the images that are still there.

    Args:
        description: What the network is.
        sections: How each pass is used.
        passes: What runs each: the values by name that it reads, and others -> "logits" `[b, classes]`, and what later
            passes read, with "next_" before its name.
    """

    def __init__(self, description: Description, sections: Sequence[Section], passes: Sequence[Pass]) -> None:
        self.description, self.sections, self.passes = description, sections, passes

    def steps(self, images: np.ndarray) -> Generator[tuple[np.ndarray, dict[str, np.ndarray]], np.ndarray | None, None]:
        """Run all passes on all images, one by one.

        Args:
            images: `[B, C, H, W]`, float32, normalised.

        Yields:
            The answer so far `[B, classes]`, and the values by name from which the pass read. Whoever wants only some
            images to go on sends their rows.
        """
        values, answer, heads = {"images": images}, None, 0
        for section, run in zip(self.sections, self.passes, strict=True):
            made = run(values)
            answer, heads = combined(answer, heads, made.pop("logits"), section.combine)
            on = yield answer, values
            values = values | {name.removeprefix(NEXT): value for name, value in made.items()}
            if on is not None:
                answer = answer[on]
                values = {name: value[on] for name, value in values.items()}

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Answer a batch of any size, without torch between the passes, which takes a while to be called.

        Args:
            images: `[B, C, H, W]`, float32, normalised.

        Returns:
            Logits `[B, classes]` and margins `[B, passes - 1]`, both float32 (`execution.executor.Answer`).
        """
        margins = np.full((len(images), len(self.sections) - 1), -np.inf, dtype=np.float32)
        rows, steps = np.arange(len(images)), self.steps(images)
        logits, _ = next(steps)
        answer = logits
        for number, section in enumerate(self.sections[:-1]):
            assert section.rule is not None
            margin = section.threshold - CERTAINTIES[section.rule](softmax(answer))
            margins[rows, number] = margin
            on = np.flatnonzero(margin >= 0)
            if not len(on):
                break
            rows = rows[on]
            answer, _ = steps.send(None if len(on) == len(margin) else on)
            logits[rows] = answer
        return logits, margins

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""
        logits, margins = self.run(images.numpy())
        return Answer(torch.from_numpy(logits), torch.from_numpy(margins))
