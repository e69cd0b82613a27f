"""A model repository for NVIDIA Triton: the passes as ONNX models, and one model in Python that joins them.

A client asks the joining model alone. It runs the next pass, by a request inside of the server, for the images that go
on (`formats/triton_model.py`). A static network is one ONNX model.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import onnx

from routekit.formats.description import Description
from routekit.formats.sections import from_metadata
from routekit.manifest import MANIFEST, ours

# How many images a request may have, and the server joins at most.
MOST = 64
PASSES, LABELS = "passes.json", "labels.txt"
# The name, the type and the shape of an image's share of an input or output.
Value = tuple[str, str, Sequence[int]]


def to_triton(folder: Path) -> list[Path]:
    """Make a model repository out of a folder of passes, in place.

    Args:
        folder: What `save_passes` or `write_sequence` wrote, in any precision.

    Returns:
        The files, those of the model that clients ask last.
    """
    files = ours(folder, "pass-*.onnx")
    models = [onnx.load(str(file)) for file in files]
    found = [
        from_metadata({entry.key: entry.value for entry in model.metadata_props}, file)
        for model, file in zip(models, files, strict=True)
    ]
    description, _ = found[0]
    name = re.sub(r"\W+", "_", description.spec.name)
    names = [f"{name}_pass{number}" for number in range(1, len(files) + 1)] if len(files) > 1 else [name]
    (folder / MANIFEST).unlink()
    passes, written = [], []
    for model, file, own, (_, section) in zip(models, files, names, found, strict=True):
        reads, gives = _values(model.graph.input), _values(model.graph.output)
        labels = LABELS if own == name else None
        written += _model(folder / own, 'platform: "onnxruntime_onnx"', reads, gives, labels)
        shutil.move(file, folder / own / "1" / "model.onnx")
        written.append(folder / own / "1" / "model.onnx")
        passes.append(
            {"model": own, "reads": [each for each, *_ in reads], "gives": [each for each, *_ in gives]}
            | {key: value for key, value in asdict(section).items() if key != "number"}
        )
    if len(files) > 1:
        images: Value = ("images", "FP32", description.spec.input_size)
        logits: Value = ("logits", "FP32", [description.spec.num_classes])
        written += _model(folder / name, 'backend: "python"', [images], [logits, ("passes", "INT32", [1])], LABELS)
        written.append(folder / name / "1" / "model.py")
        written[-1].write_text(resources.files("routekit.formats").joinpath("triton_model.py").read_text())
    return [*written, *_beside(folder / name, description, passes)]


def _values(values: Iterable[onnx.ValueInfoProto]) -> list[Value]:
    """The inputs or outputs of a graph, which are float32 `[N, ...]`."""
    return [(each.name, "FP32", [dim.dim_value for dim in each.type.tensor_type.shape.dim[1:]]) for each in values]


def _model(folder: Path, runs: str, reads: Sequence[Value], gives: Sequence[Value], labels: str | None) -> list[Path]:
    """Write the folder of a model, with its configuration."""
    (folder / "1").mkdir(parents=True)
    inputs = [_value("input", value) for value in reads]
    outputs = [_value("output", value, labels if value[0] == "logits" else None) for value in gives]
    lines = [f'name: "{folder.name}"', runs, f"max_batch_size: {MOST}", *inputs, *outputs, "dynamic_batching { }"]
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")
    return [folder / "config.pbtxt"]


def _value(side: str, value: Value, labels: str | None = None) -> str:
    name, kind, shape = value
    named = f'\n  label_filename: "{labels}"' if labels else ""
    return f'{side} {{\n  name: "{name}"\n  data_type: TYPE_{kind}\n  dims: [ {", ".join(map(str, shape))} ]{named}\n}}'


def _beside(folder: Path, description: Description, passes: Sequence[Mapping[str, object]]) -> list[Path]:
    """Write what images have to look like and how passes are used, and the names of the classes."""
    document = {"preprocessing": description.preprocessing, "classes": description.classes, "passes": passes}
    (folder / "1" / PASSES).write_text(json.dumps(document, indent=1) + "\n")
    (folder / LABELS).write_text("".join(" ".join(each.split()) + "\n" for each in description.classes))
    return [folder / "1" / PASSES, folder / LABELS]
