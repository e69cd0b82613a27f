"""OpenVINO on what `routekit export --format openvino` wrote."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import FORMAT
from routekit.runtime.runtime import TwoForms, need


class OpenVinoRuntime(TwoForms):
    """A compiled model for each form."""

    suffix = ".xml"

    def open(self, file: Path) -> tuple[str | None, Callable[[Tensor], Answer]]:
        """Read a file: its description, and what answers images. Raises InputError."""
        core = need("openvino", "openvino").Core()
        # OpenVINO would compute in bfloat16 where the CPU can, and decisions hang on small differences.
        options: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        try:
            model = core.read_model(str(file))
            text = model.get_rt_info([FORMAT]).astype(str) if model.has_rt_info([FORMAT]) else None
            compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:
            raise InputError(f"{file} cannot be opened by OpenVINO: {first_line(error)}") from error

        def answer(images: Tensor) -> Answer:
            result = compiled([images.contiguous().numpy()])
            return Answer(torch.from_numpy(result["logits"].copy()), torch.from_numpy(result["margins"].copy()))

        return text, answer
