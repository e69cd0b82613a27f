"""OpenVINO files of a routed network, converted from its ONNX files."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import openvino

from routekit.errors import ExportError, first_line
from routekit.formats.description import FORMAT


def save_openvino(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Convert what `save_onnx` wrote to .xml and .bin files.

    Args:
        folder: It is made if it is not there.
        files: The ONNX files.

    Returns:
        The .xml files.

    Raises:
        ExportError: OpenVINO cannot convert a file.
    """
    written = []
    for file in files:
        try:
            model = openvino.convert_model(str(file))
        except Exception as error:
            raise ExportError(f"OpenVINO cannot convert the network: {first_line(error)}") from error
        text = next(prop.value for prop in onnx.load(str(file)).metadata_props if prop.key == FORMAT)
        model.set_rt_info(text, [FORMAT])
        target = folder / file.with_suffix(".xml").name
        openvino.save_model(model, str(target), compress_to_fp16=False)
        written.append(target)
    return written
