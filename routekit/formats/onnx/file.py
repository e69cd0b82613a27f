"""ONNX files of a routed network: the graph, and in its metadata all that a program needs to use it."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from routekit.errors import ExportError
from routekit.execution.prepare import prepare
from routekit.formats.description import FORMAT, LAYOUT, Description
from routekit.formats.onnx.assembly import Assembly, Form
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import OPSET, Exporter
from routekit.formats.onnx.shortcut import convolve_shortcuts
from routekit.network.network import RoutedNetwork

# Of the ONNX file format itself: what runtimes since the end of 2023 read.
IR_VERSION = 9


def save_onnx(
    folder: Path,
    network: RoutedNetwork,
    about: dict[str, Any],
    exporter: Exporter | None = None,
    *,
    forms: Sequence[Form] = ("single", "batch"),
    native: bool = False,
) -> list[Path]:
    """Write `network` to `folder`, by default its forms for one image and for batches; returns the files.

    Input "images" [N, C, H, W] float32, normalised; outputs "logits" [N, classes] and "margins" [N, n], where a unit
    ran if its margin is not negative. `about` goes into the metadata; an `exporter` remembers the blocks that it has
    exported before. `native` files are for onnxruntime on CPUs of this machine's family, and faster there.
    Raises ExportError for what cannot be exported.
    """
    if network.layout.forks:
        # Which of its modules an image runs is decided inside of what a file would hold.
        raise ExportError("a tree of paths runs in torch alone: export it as a compact checkpoint")
    network = prepare(network).cpu()
    description = Description.of(network, about)
    convolve_shortcuts(network)
    exporter, properties = exporter or Exporter(), {}
    kind: Callable[[RoutedNetwork, Exporter], Parts] = Parts
    if native:
        # Needs onnxruntime, which users of other runtimes do without.
        from routekit.formats.onnx.native import NativeParts
        from routekit.formats.onnx.optimized import layout

        kind, properties = NativeParts, {LAYOUT: layout()}
    parts = kind(network, exporter)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for form in forms:
        own = parts if form != "dense" else Parts(network.without_routing(), exporter)
        graph = Assembly(own, form).build(network.name)
        model = onnx.helper.make_model(
            graph,
            producer_name="routekit",
            producer_version=version("routekit"),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)]
            + [onnx.helper.make_opsetid(domain, 1) for domain in own.domains],
            ir_version=IR_VERSION,
        )
        onnx.helper.set_model_props(model, {FORMAT: description.to_json(form)} | properties)
        onnx.checker.check_model(model)
        files.append(folder / f"{form}.onnx")
        onnx.save(model, str(files[-1]))
    return files
