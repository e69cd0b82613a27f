"""ONNX files of a routed network: the graph, and in its metadata all that a program needs to use it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from routekit.files import whole_folder
from routekit.formats.description import FORMAT, LAYOUT, described
from routekit.formats.onnx.assembly import Form, assemble
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import IR_VERSION, OPSET, Exporter
from routekit.formats.onnx.shortcut import convolve_shortcuts
from routekit.network.network import RoutedNetwork


def save_onnx(
    folder: Path,
    network: RoutedNetwork,
    about: dict[str, Any],
    exporter: Exporter | None = None,
    *,
    forms: Sequence[Form] = ("single", "batch"),
    native: bool = False,
) -> list[Path]:
    """Write ONNX files with input "images" `[N, C, H, W]`, float32, normalised.

    The outputs are "logits" `[N, classes]` and "margins" `[N, n]`. A unit ran if its margin is not negative.

    Args:
        folder: It is made if it is not there; an older one of ours is replaced.
        network: The network.
        about: What a user of the files needs beside the network; it is in the metadata.
        exporter: It keeps the blocks that it has exported before.
        forms: "single" for one image, "batch" for any number, "dense" without decisions.
        native: Whether the files are for onnxruntime on CPUs of this machine's family, and faster there.

    Returns:
        The files, in the order of `forms`.

    Raises:
        ExportError: ONNX cannot hold the network.
    """
    network, description = described(network, about)
    convolve_shortcuts(network)
    exporter = exporter or Exporter()
    properties: dict[str, str] = {}
    if native:
        # Needs onnxruntime, which users of other runtimes do without.
        from routekit.formats.onnx.native import NativeParts
        from routekit.formats.onnx.optimized import layout

        parts: Parts = NativeParts(network, exporter)
        properties[LAYOUT] = layout()
    else:
        parts = Parts(network, exporter)
    with whole_folder(folder, "network") as made:
        for form in forms:
            own = parts if form != "dense" else Parts(network.without_routing(), exporter)
            metadata = {FORMAT: description.to_json(form)} | properties
            save_model(made / f"{form}.onnx", assemble(own, form), own.domains, metadata)
    return [folder / f"{form}.onnx" for form in forms]


def save_model(
    file: Path, graph: onnx.GraphProto, domains: Sequence[tuple[str, int]], properties: Mapping[str, str]
) -> None:
    """Write a graph as an ONNX file.

    Args:
        file: The file.
        graph: The graph.
        domains: The operator sets that it needs beside the standard one, and their versions.
        properties: The metadata.
    """
    _forget_origin(graph)
    model = onnx.helper.make_model(
        graph,
        producer_name="routekit",
        producer_version=version("routekit"),
        opset_imports=[onnx.helper.make_opsetid(*each) for each in [("", OPSET), *domains]],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _forget_origin(graph: onnx.GraphProto) -> None:
    """Remove where in whose source code each node comes from, which the exporter notes: paths of this machine."""
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("doc_string")
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _forget_origin(inner)
