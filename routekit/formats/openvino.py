"""OpenVINO files of a routed network, converted from its ONNX files."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import openvino

from routekit.errors import ExportError, RoutekitError, first_line
from routekit.files import whole_folder
from routekit.formats.description import FORMAT


def save_openvino(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Convert what `save_onnx` wrote to .xml and .bin files.

    Args:
        folder: It is made if it is not there; an older one of ours is replaced.
        files: The ONNX files.

    Returns:
        The .xml files.

    Raises:
        ExportError: OpenVINO cannot convert a file.
    """
    with whole_folder(folder, "network") as made:
        for file in files:
            try:
                model = openvino.convert_model(str(file))
            except Exception as error:
                raise ExportError(f"OpenVINO cannot convert the network: {first_line(error)}") from error
            text = next(prop.value for prop in onnx.load(str(file)).metadata_props if prop.key == FORMAT)
            model.set_rt_info(text, [FORMAT])
            try:
                openvino.save_model(model, str(made / file.with_suffix(".xml").name), compress_to_fp16=False)
            except RuntimeError as error:
                raise RoutekitError(f"OpenVINO cannot write to {folder}: {first_line(error)}") from error
    return [folder / file.with_suffix(".xml").name for file in files]
