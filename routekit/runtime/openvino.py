"""OpenVINO on what `routekit export --format openvino` wrote."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import FORMAT
from routekit.runtime.runtime import TwoForms, need


class OpenVinoRuntime(TwoForms):
    """One compiled model per form; `path` is the exported folder or one of its files."""

    def __init__(self, path: Path) -> None:
        self.core = need("openvino", "openvino").Core()
        # OpenVINO would compute in bfloat16 where the CPU can, and decisions hang on small differences.
        self.options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        super().__init__(path, ".xml")

    def open(self, file: Path) -> tuple[str | None, Any]:
        """Read a file: its description, and a compiled model. Raises InputError."""
        try:
            model = self.core.read_model(str(file))
            text = model.get_rt_info([FORMAT]).astype(str) if model.has_rt_info([FORMAT]) else None
            return text, self.core.compile_model(model, "CPU", self.options)
        except RuntimeError as error:
            raise InputError(f"{file} cannot be opened by OpenVINO: {first_line(error)}") from error

    def run(self, model: Any, images: Tensor) -> Answer:
        """Run a compiled model."""
        result = model([images.contiguous().numpy()])
        return Answer(torch.from_numpy(result["logits"].copy()), torch.from_numpy(result["margins"].copy()))
