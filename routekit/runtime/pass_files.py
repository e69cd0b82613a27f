"""The passes in ONNX files, by onnxruntime and by OpenVINO."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from routekit.errors import InputError, first_line
from routekit.formats.description import FORMAT, SECTION, Description, Section
from routekit.formats.sections import NEXT, READS, from_metadata
from routekit.manifest import ours, verify
from routekit.runtime.runtime import Pass, need

# The file, the number of images in every call, and the number of threads -> the metadata, and what runs it.
Opener = Callable[[Path, int | None, int], tuple[Mapping[str, str], Pass]]


def open_files(
    path: Path, runtime: str, *, batch: int | None, threads: int
) -> tuple[Description, list[Section], list[Pass]]:
    """Open `pass-0.onnx`, `pass-1.onnx`, ...

    Args:
        path: The folder, or one of its files.
        runtime: "onnx" or "openvino".
        batch: The number of images in every call; None if that is not known.
        threads: The number of threads; 0 for the runtime's choice.

    Returns:
        What the network is, how each pass is used, and what runs each.

    Raises:
        InputError: A file is missing, or was not written by routekit, or the runtime is not installed.
    """
    need({"onnx": "onnxruntime"}.get(runtime, runtime), runtime)
    open_file, name = OPENERS[runtime]
    folder = path if path.is_dir() else path.parent
    sections: list[Section] = []
    passes: list[Pass] = []
    for number in range(len(ours(folder, "pass-*.onnx"))):
        file = folder / f"pass-{number}.onnx"
        # How many images go on past the first pass depends on them, unless there is but one.
        known = batch if number == 0 or batch == 1 else None
        verify(file)
        try:
            found, run = open_file(file, known, threads)
        except Exception as error:
            raise InputError(f"{file} cannot be opened by {name}: {first_line(error)}") from error
        description, section = from_metadata(found, file)
        sections.append(section)
        passes.append(run)
    if not sections or sections[-1].rule is not None:
        raise InputError(f"{folder} lacks the pass after pass-{len(sections) - 1}.onnx: export it again")
    return description, sections, passes


def _open_onnx(file: Path, batch: int | None, threads: int) -> tuple[Mapping[str, str], Pass]:
    """Open a session."""
    from routekit.formats.onnx.session import open_session

    session = open_session(file, threads=threads, batch=batch, spins=False)
    reads, gives = ([each.name for each in which] for which in (session.get_inputs(), session.get_outputs()))

    def run(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {name: np.ascontiguousarray(values[name]) for name in reads}
        return dict(zip(gives, session.run(gives, given), strict=True))

    return session.get_modelmeta().custom_metadata_map, run


def _open_openvino(file: Path, batch: int | None, threads: int) -> tuple[Mapping[str, str], Pass]:
    """Compile a model."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(file))
    found = {
        key: model.get_rt_info(["framework", key]).astype(str)
        for key in (FORMAT, SECTION)
        if model.has_rt_info(["framework", key])
    }
    if batch is not None:
        model.reshape({each: openvino.PartialShape([batch, *each.partial_shape[1:]]) for each in model.inputs})
    # OpenVINO would compute in bfloat16 where the CPU can, and decisions hang on small differences.
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(model, "CPU", options)
    # A value may have other names, too, of what was fused into it.
    reads = [name for name in READS for each in compiled.inputs if name in each.names]
    gives = [
        name for name in ("logits", *(NEXT + name for name in READS)) for each in compiled.outputs if name in each.names
    ]

    def run(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {name: np.ascontiguousarray(values[name]) for name in reads}
        # Results of their own: else the next call would write over them.
        result = compiled(given, share_inputs=True, share_outputs=False)
        return {name: result[name] for name in gives}

    return found, run


# By the name of the runtime: what opens a file, and how messages call it.
OPENERS: dict[str, tuple[Opener, str]] = {
    "onnx": (_open_onnx, "onnxruntime"),
    "openvino": (_open_openvino, "OpenVINO"),
}
