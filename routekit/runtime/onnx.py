"""onnxruntime on what `routekit export --format onnx` wrote."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.errors import InputError, first_line
from routekit.execution.executor import Answer
from routekit.formats.description import FORMAT, LAYOUT
from routekit.runtime.runtime import TwoForms, need


class OnnxRuntime(TwoForms):
    """One session per form; `path` is the exported folder or one of its files."""

    def __init__(self, path: Path) -> None:
        self.library = need("onnxruntime", "onnx")
        super().__init__(path, ".onnx")

    def open(self, file: Path) -> tuple[str | None, Any]:
        """Read a file: its description, and a session. Raises InputError."""
        options = self.library.SessionOptions()
        options.log_severity_level = 3
        try:
            session = self.library.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{file} cannot be opened by onnxruntime: {first_line(error)}") from error
        found = session.get_modelmeta().custom_metadata_map
        if LAYOUT in found:
            from routekit.formats.onnx.optimized import layout

            if found[LAYOUT] != layout():
                raise InputError(
                    f"{file} was written for another CPU family or onnxruntime ({found[LAYOUT]}; here {layout()}): "
                    "export it on this machine, or without --native"
                )
        return found.get(FORMAT), session

    def run(self, model: Any, images: Tensor) -> Answer:
        """Run a session."""
        logits, margins = model.run(["logits", "margins"], {"images": images.contiguous().numpy()})
        return Answer(torch.from_numpy(logits), torch.from_numpy(margins))
