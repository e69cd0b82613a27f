"""onnxruntime on what `routekit export --format onnx` wrote."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import FORMAT, LAYOUT
from routekit.runtime.runtime import TwoForms, need


class OnnxRuntime(TwoForms):
    """A session for each form."""

    suffix = ".onnx"

    def open(self, file: Path) -> tuple[str | None, Callable[[Tensor], Answer]]:
        """Read a file: its description, and what answers images. Raises InputError."""
        need("onnxruntime", "onnx")
        from routekit.formats.onnx.session import open_session

        try:
            session = open_session(file)
        except Exception as error:
            raise InputError(f"{file} cannot be opened by onnxruntime: {first_line(error)}") from error
        found = session.get_modelmeta().custom_metadata_map
        if LAYOUT in found:
            from routekit.formats.onnx.optimized import layout

            if found[LAYOUT] != layout():
                raise InputError(
                    f"{file} was written for another CPU family or onnxruntime ({found[LAYOUT]}; here {layout()}): "
                    "export it on this machine, or not native"
                )

        def answer(images: Tensor) -> Answer:
            logits, margins = session.run(["logits", "margins"], {"images": images.contiguous().numpy()})
            return Answer(torch.from_numpy(logits), torch.from_numpy(margins))

        return found.get(FORMAT), answer
