"""onnxruntime on what `routekit export --format passes` wrote: a session for each pass."""

import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import FORMAT, SECTION, Description, Section
from routekit.network.forward import combined
from routekit.routing.certainty import certainties
from routekit.runtime.runtime import need

# What one graph gives to the next ones.
NEXT = "next_"


class PassesRuntime:
    """Runs one graph after the other, each on the images that are still there.

    Args:
        path: The exported folder, or one of its files.
        batch: The number of images in every call, if that is known: the first pass is planned for it.
        threads: The number of threads of each session; 0 for onnxruntime's choice.

    Raises:
        InputError: A file is missing, or was not written by routekit.
    """

    def __init__(self, path: Path, *, batch: int | None = None, threads: int = 0) -> None:
        need("onnxruntime", "onnx")
        from routekit.formats.onnx.session import open_session

        path = path if path.is_dir() else path.parent
        self.sections: list[Section] = []
        self.sessions = []
        for number in range(len(list(path.glob("pass-*.onnx")))):
            file = path / f"pass-{number}.onnx"
            known = batch if number == 0 or batch == 1 else None
            try:
                session = open_session(file, threads=threads, batch=known, spins=False)
            except Exception as error:
                raise InputError(f"{file} cannot be opened by onnxruntime: {first_line(error)}") from error
            found = session.get_modelmeta().custom_metadata_map
            self.description, _ = Description.from_json(found.get(FORMAT), file)
            try:
                self.sections.append(TypeAdapter(Section).validate_python(json.loads(found[SECTION])))
            except (KeyError, ValueError) as error:
                raise InputError(f"{file} holds a damaged description: {first_line(error)}") from error
            self.sessions.append(session)
        self.reads = [[each.name for each in session.get_inputs()] for session in self.sessions]
        self.gives = [[each.name for each in session.get_outputs()] for session in self.sessions]
        if not self.sections or self.sections[-1].rule is not None:
            raise InputError(f"{path} lacks the pass after pass-{len(self.sections) - 1}.onnx: export it again")

    def steps(self, images: Tensor) -> Generator[tuple[Tensor, dict[str, np.ndarray]], np.ndarray | None, None]:
        """Run all passes on all images, one by one.

        Args:
            images: `[B, C, H, W]`, normalised.

        Yields:
            The answer so far `[B, classes]`, and the values by name that the pass read. Whoever wants only some images
            to go on sends their rows.
        """
        values, answer, heads = {"images": images.contiguous().numpy()}, None, 0
        for number, section in enumerate(self.sections):
            given = self.sessions[number].run(self.gives[number], {name: values[name] for name in self.reads[number]})
            made = dict(zip(self.gives[number], given, strict=True))
            answer, heads = combined(answer, heads, torch.from_numpy(made.pop("logits")), section.combine)
            on = yield answer, values
            values = values | {name.removeprefix(NEXT): value for name, value in made.items()}
            if on is not None:
                answer = answer[torch.from_numpy(on)]
                values = {name: value[on] for name, value in values.items()}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""
        margins = np.full((len(images), len(self.sections) - 1), -np.inf, dtype=np.float32)
        logits = torch.empty(len(images), self.description.spec.num_classes)
        rows, steps = np.arange(len(images)), self.steps(images)
        answer, _ = next(steps)
        for number, section in enumerate(self.sections[:-1]):
            assert section.rule is not None
            logits[rows] = answer
            margin = (section.threshold - certainties[section.rule](answer.softmax(dim=1))).numpy()
            margins[rows, number] = margin
            on = np.flatnonzero(margin >= 0)
            if not len(on):
                return Answer(logits, torch.from_numpy(margins))
            rows = rows[on]
            answer, _ = steps.send(None if len(on) == len(margin) else on)
        logits[rows] = answer
        return Answer(logits, torch.from_numpy(margins))
