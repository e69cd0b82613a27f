"""torch on what `routekit export --format torch` wrote."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import Description
from routekit.formats.program import DESCRIPTION
from routekit.manifest import verify


class ProgramRuntime:
    """The masked program; `path` is the file, or the exported folder. Raises InputError for files that are not ours.

    To open it is to run code that lies in it: only for files that the user trusts (`load_runtime`).
    """

    def __init__(self, path: Path) -> None:
        file = path if path.is_file() else path / "masked.pt2"
        verify(file)
        extra: dict[str, Any] = {DESCRIPTION: ""}
        try:
            self.program = torch.export.load(file, extra_files=extra).module()
        except Exception as error:
            raise InputError(f"{file} cannot be opened by torch: {first_line(error)}") from error
        self.description, form = Description.from_json(extra[DESCRIPTION] or None, file)
        if form != "masked":
            raise InputError(f"{file} does not route: use masked.pt2 beside it")

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""
        return Answer(*self.program(images.contiguous()))
