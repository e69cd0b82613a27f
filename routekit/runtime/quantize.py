"""int8 passes: a post-training quantiser on each graph, and thresholds for the certainties that follow."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from routekit.errors import InputError
from routekit.formats.onnx.passes import set_section, write_model
from routekit.formats.onnx.quantizable import make_quantizable
from routekit.formats.onnx.quiet import quiet
from routekit.formats.onnx.stem import read_in_blocks
from routekit.registry import nearest
from routekit.routing.certainty import certainties
from routekit.runtime.passes import PassesRuntime, open_passes
from routekit.runtime.runtime import need

# How many images at a time.
BATCH = 32


@torch.inference_mode()
def quantize_passes(folder: Path, images: Tensor, *, by: str = "onnxruntime", runtime: str = "onnx") -> None:
    """Quantise exported passes in place: weights to int8 by channel, features to 8 bits by tensor.

    The classifier and what decides stay in float32. Thresholds move with the certainties, so that as many of the images
    go on. The files run in onnxruntime and in OpenVINO.

    Args:
        folder: What `save_passes` or `write_sequence` wrote.
        images: `[N, C, H, W]`, normalised, like those to come: the ranges of features are theirs.
        by: What chooses ranges and places: "onnxruntime" or "nncf", which also corrects biases.
        runtime: For which runtime the graphs are arranged: "onnx" (`formats.onnx.stem`) or "openvino".

    Raises:
        InputError: The quantiser is unknown or not installed, or the folder does not hold passes.
    """
    if by not in QUANTISERS:
        raise InputError(f"unknown quantiser {by!r}: {nearest(by, QUANTISERS)}")
    if by == "nncf":
        need("nncf", "nncf")
    before = open_passes(folder)
    answers, inputs = _everything(before, images)
    with TemporaryDirectory() as place:
        for number, given in enumerate(inputs):
            file, ready = folder / f"pass-{number}.onnx", Path(place) / "ready.onnx"
            model = onnx.load(str(file))
            if runtime == "onnx":
                read_in_blocks(model)
            make_quantizable(model)
            onnx.save(model, str(ready))
            reads = [value.name for value in model.graph.input]
            read = [{name: np.ascontiguousarray(values[name]) for name in reads} for values in given]
            write_model(file, QUANTISERS[by](ready, read))
    after = open_passes(folder)
    thresholds = _thresholds(before, answers, _everything(after, images)[0])
    for section, threshold in zip(before.sections, thresholds, strict=False):
        set_section(folder / f"pass-{section.number}.onnx", replace(section, threshold=threshold))


def _everything(runtime: PassesRuntime, images: Tensor) -> tuple[list[Tensor], list[list[dict[str, np.ndarray]]]]:
    """Run all passes on all images -> the answer `[N, classes]` after each, and the inputs of each, batch by batch."""
    inputs: list[list[dict[str, np.ndarray]]] = [[] for _ in runtime.sections]
    answers: list[list[Tensor]] = [[] for _ in runtime.sections]
    for batch in torch.split(images, BATCH):
        for number, (answer, values) in enumerate(runtime.steps(batch.numpy())):
            answers[number].append(torch.from_numpy(answer))
            inputs[number].append(values)
    return [torch.cat(each) for each in answers], inputs


def _thresholds(runtime: PassesRuntime, before: list[Tensor], after: list[Tensor]) -> list[float]:
    """Find the thresholds at which as many images go on by the answers `after` as did by those `before`."""
    found = []
    was, now = (torch.ones(len(before[0]), dtype=torch.bool) for _ in range(2))
    for section, old, new in zip(runtime.sections[:-1], before, after, strict=False):
        assert section.rule is not None
        certainty = certainties[section.rule]
        was = was & (certainty(old.softmax(dim=1)) <= section.threshold)
        sure = certainty(new.softmax(dim=1))
        ranked, count = sure[now].sort().values, int(was.sum())
        if count == 0 or not len(ranked):
            threshold = -1.0
        elif count >= len(ranked):
            threshold = 1.0
        else:
            threshold = float(ranked[count - 1] + ranked[count]) / 2
        found.append(threshold)
        now = now & (sure <= threshold)
    return found


def _by_onnxruntime(file: Path, given: list[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """Quantise the graph in a file, beside which others are written; `given` are inputs like those to come."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Gives the inputs to the quantiser."""

        def __init__(self) -> None:
            self.rest = iter(given)

        def get_next(self) -> Any:
            return next(self.rest, None)

    made = file.with_name("int8.onnx")
    with quiet():
        quant_pre_process(str(file), str(file), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(file),
            str(made),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_exact(onnx.load(str(file)).graph),
        )
    return onnx.load(str(made))


def _by_nncf(file: Path, given: list[dict[str, np.ndarray]]) -> onnx.ModelProto:
    """Quantise the graph in a file; `given` are inputs like those to come."""
    nncf = need("nncf", "nncf")
    model = onnx.load(str(file))
    ignored = nncf.IgnoredScope(names=_exact(model.graph))
    with quiet():
        made: onnx.ModelProto = nncf.quantize(model, nncf.Dataset(given), subset_size=len(given), ignored_scope=ignored)
    return made


def _exact(graph: onnx.GraphProto) -> list[str]:
    """The nodes that stay in float32: those from the classifier on, and blocks of pixels, which are no computation.

    The classifier costs hardly anything, and certainties in 8 bits are on a grid too coarse for thresholds.
    """
    made = {output: node for node in graph.node for output in node.output}
    exact, value = [node.name for node in graph.node if node.op_type == "SpaceToDepth"], "logits"
    while value in made:
        node = made[value]
        exact.append(node.name)
        if node.op_type in ("Gemm", "MatMul", "Conv"):
            break
        value = node.input[0]
    return exact


# A file with the graph, and inputs like those to come -> the quantised graph.
Quantiser = Callable[[Path, list[dict[str, np.ndarray]]], onnx.ModelProto]
QUANTISERS: dict[str, Quantiser] = {"onnxruntime": _by_onnxruntime, "nncf": _by_nncf}
