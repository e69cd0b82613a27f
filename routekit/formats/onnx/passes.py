"""A cascade as one plain graph for each pass, which runtimes optimise as they do any dense network.

Between two graphs lies a stop; an exit divides a pass in two. A program runs the first graph on a batch, finds the
images whose answer is not certain enough, and runs the next graph on these (`runtime/passes.py`).
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import GraphProto, TensorProto, helper

from routekit.errors import ExportError, InputError, first_line
from routekit.files import whole_folder, write_atomically
from routekit.formats.description import SECTION, Description, Section, described
from routekit.formats.onnx.assembly import Writing, write_steps
from routekit.formats.onnx.file import save_model
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import Exporter
from routekit.formats.onnx.shortcut import convolve_shortcuts
from routekit.formats.sections import NEXT, Stretch, decides_inside, from_metadata, stretches, to_metadata
from routekit.manifest import ours
from routekit.network.network import RoutedNetwork
from routekit.network.program import Stem


def save_passes(
    folder: Path, network: RoutedNetwork, about: dict[str, Any], exporter: Exporter | None = None
) -> list[Path]:
    """Write `pass-0.onnx`, `pass-1.onnx`, ... with output "logits" `[N, classes]`.

    The inputs are what passes share: "images" `[N, C, H, W]`, float32, normalised for the first pass; "shared", the
    features of a stem that several passes read; "x", the features at an exit. Other graphs give these, as "next_shared"
    and "next_x".

    Args:
        folder: It is made if it is not there; an older one of ours is replaced.
        network: The network.
        about: What a user of the files needs beside the network; it is in the metadata.
        exporter: It keeps the blocks that it has exported before.

    Returns:
        The files, in the order of the passes.

    Raises:
        ExportError: Something is decided at units, or by a router, or ONNX cannot hold the network.
    """
    network, description = described(network, about)
    if decides_inside(network):
        raise ExportError("what decides at units, or has learned to, lies inside of a pass: use the format onnx")
    convolve_shortcuts(network)
    parts = Parts(network, exporter or Exporter())
    files = []
    with whole_folder(folder, "network") as made:
        for stretch in stretches(network):
            number = stretch.section.number
            graph = _graph(parts, stretch, f"{network.name}, pass {number}")
            files.append(f"pass-{number}.onnx")
            save_model(made / files[-1], graph, parts.domains, to_metadata(description, stretch.section))
    return [folder / file for file in files]


@torch.no_grad()
def _graph(parts: Parts, stretch: Stretch, name: str) -> GraphProto:
    """Build the graph of a section."""
    steps, behind = stretch.steps, stretch.behind
    state = Writing(parts, Graph(), single=False, ahead=steps, x="x", shared="shared")
    spec, reads = parts.network.spec, parts.reads
    shapes = {"images": spec.input_size, "logits": [spec.num_classes], "x": reads[id(steps[0])].shape[1:]}
    shapes |= {f"{NEXT}x": reads[id(behind[0])].shape[1:]} if behind else {}
    for before, step in itertools.pairwise(steps):
        if isinstance(before, Stem):
            shapes["shared"] = shapes[f"{NEXT}shared"] = reads[id(step)].shape[1:]
    made = {"logits": write_steps(state)[0]}
    made |= {NEXT + each: getattr(state, each) for each in stretch.gives}
    for output, value in made.items():
        state.graph.nodes.append(helper.make_node("Identity", [value], [output], name=output))
    inputs, outputs = (
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["N", *shapes[each]]) for each in names]
        for names in (stretch.reads, made)
    )
    return helper.make_graph(state.graph.nodes, name, inputs, outputs, state.graph.tensors)


def write_sequence(folder: Path, parts: Sequence[Path], network: RoutedNetwork, about: dict[str, Any]) -> list[Path]:
    """Make the passes of a joined network out of networks that were each exported alone; nothing is exported again.

    Args:
        folder: Where `pass-0.onnx`, `pass-1.onnx`, ... are written. It is made if it is not there; an older one of ours
            is replaced.
        parts: The folders of the networks, the first to run first: each has one pass, in any precision.
        network: The joined network, with its thresholds; with one part, that network.
        about: What a user of the files needs beside the network; it is in the metadata.

    Returns:
        The files, in the order of the passes.

    Raises:
        InputError: A part is not one static network, they are not as many as the passes of the network, or do not take
            its images to its classes.
    """
    sections = [stretch.section for stretch in stretches(network)]
    if len(parts) != len(sections):
        raise InputError(f"{network.name} has {len(sections)} passes, not {len(parts)}")
    description = Description.of(network, about)
    models = [_static(part, description) for part in parts]
    files = [f"pass-{section.number}.onnx" for section in sections]
    with whole_folder(folder, "network") as made:
        for file, model, section in zip(files, models, sections, strict=True):
            helper.set_model_props(model, to_metadata(description, section))
            write_model(made / file, model)
    return [folder / file for file in files]


def set_section(file: Path, section: Section) -> None:
    """Change how the graph in a file is used."""
    model = onnx.load(str(file))
    found = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, found | {SECTION: json.dumps(asdict(section))})
    write_model(file, model)


def write_model(file: Path, model: onnx.ModelProto) -> None:
    """Write a graph and its metadata, whole or not at all."""
    write_atomically(file, lambda stream: stream.write(model.SerializeToString()))


def _static(part: Path, whole: Description) -> onnx.ModelProto:
    """Read the only pass of a static network, a part of `whole`."""
    files = ours(part, "pass-*.onnx")
    if [file.name for file in files] != ["pass-0.onnx"]:
        raise InputError(f"{part} does not hold the one pass of a static network")
    try:
        model = onnx.load(str(files[0]))
    except Exception as error:
        raise InputError(f"{files[0]} cannot be read: {first_line(error)}") from error
    description, section = from_metadata({entry.key: entry.value for entry in model.metadata_props}, files[0])
    if section.rule is not None:
        raise InputError(f"{part} does not hold the one pass of a static network")
    if not _alike(description, whole):
        raise InputError(f"{part} does not take the images of {whole.spec.full_name} to its classes")
    return model


def _alike(first: Description, other: Description) -> bool:
    """Whether two networks take the same images to the same classes; some files do not name these."""
    images = [(each.spec.input_size, each.spec.mean, each.spec.std) for each in (first, other)]
    names = [each.about.get("classes") for each in (first, other)]
    classes = first.spec.num_classes == other.spec.num_classes and (None in names or names[0] == names[1])
    return images[0] == images[1] and classes
