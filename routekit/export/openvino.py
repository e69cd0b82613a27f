"""OpenVINO files of a routed network, converted from its ONNX files."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import openvino

from routekit.errors import ExportError
from routekit.export.description import FORMAT
from routekit.export.onnx.file import save_onnx
from routekit.export.onnx.graph import Form
from routekit.export.onnx.piece import Exporter
from routekit.network.network import RoutedNetwork


def save_openvino(
    folder: Path,
    network: RoutedNetwork,
    about: dict[str, Any],
    exporter: Exporter | None = None,
    *,
    forms: Sequence[Form] = ("single", "batch"),
) -> list[Path]:
    """Write `network` as OpenVINO's .xml and .bin, as `save_onnx` does; returns the .xml files. Raises ExportError."""
    written = []
    with tempfile.TemporaryDirectory() as temporary:
        for file in save_onnx(Path(temporary), network, about, exporter, forms=forms):
            try:
                model = openvino.convert_model(str(file))
            except Exception as error:
                raise ExportError(f"OpenVINO cannot convert the network: {str(error).splitlines()[0]}") from error
            text = next(prop.value for prop in onnx.load(str(file)).metadata_props if prop.key == FORMAT)
            model.set_rt_info(text, [FORMAT])
            target = folder / file.with_suffix(".xml").name
            openvino.save_model(model, str(target), compress_to_fp16=False)
            written.append(target)
    return written
