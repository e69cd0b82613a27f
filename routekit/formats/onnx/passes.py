"""A cascade as one plain graph for each pass, which runtimes optimise as they do any dense network.

Between two graphs lies a stop; an exit divides a pass in two. A program runs the first graph on a batch, finds the
images whose answer is not certain enough, and runs the next graph on these (`runtime/passes.py`).
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from onnx import GraphProto, TensorProto, helper

from routekit.errors import ExportError
from routekit.formats.description import FORMAT, SECTION, Section, described
from routekit.formats.onnx.assembly import Writing, write_steps
from routekit.formats.onnx.file import save_model
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.parts import Parts
from routekit.formats.onnx.piece import Exporter
from routekit.formats.onnx.shortcut import convolve_shortcuts
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Stem, Step, Stop, View
from routekit.routing.certainty import certainties


def save_passes(
    folder: Path, network: RoutedNetwork, about: dict[str, Any], exporter: Exporter | None = None
) -> list[Path]:
    """Write `pass-0.onnx`, `pass-1.onnx`, ... with output "logits" `[N, classes]`.

    The inputs are what passes share: "images" `[N, C, H, W]`, float32, normalised for the first pass; "shared", the
    features of a stem that several passes read; "x", the features at an exit. Other graphs give these, as "next_shared"
    and "next_x".

    Args:
        folder: It is made if it is not there.
        network: The network.
        about: What a user of the files needs beside the network; it is in the metadata.
        exporter: It keeps the blocks that it has exported before.

    Returns:
        The files, in the order of the passes.

    Raises:
        ExportError: Something is decided at units, or by a router, or ONNX cannot hold the network.
    """
    network, description = described(network, about)
    if network.junctions or any(decider.config.rule not in certainties for decider in network.deciders):
        raise ExportError("what decides at units, or has learned to, lies inside of a pass: use the format onnx")
    convolve_shortcuts(network)
    parts = Parts(network, exporter or Exporter())
    folder.mkdir(parents=True, exist_ok=True)
    files, sections = [], list(_sections(network.steps))
    for number, (steps, stop) in enumerate(sections):
        behind = sections[number + 1][0] if stop else []
        answers = [step for step in steps if isinstance(step, Classify | Head)]
        section = Section(
            number,
            combine=answers[-1].combine if isinstance(answers[-1], Head) else "replace",
            rule=stop.decider.config.rule if stop else None,
            threshold=float(stop.decider.bias) if stop else 0.0,
        )
        properties = {FORMAT: description.to_json("pass"), SECTION: json.dumps(asdict(section))}
        file = folder / f"pass-{number}.onnx"
        save_model(file, _graph(parts, steps, behind, f"{network.name}, pass {number}"), parts.domains, properties)
        files.append(file)
    return files


def _sections(steps: Sequence[Step]) -> Iterator[tuple[list[Step], Stop | None]]:
    """Divide a program at its stops -> the steps of each section, and the stop behind it."""
    section: list[Step] = []
    for step in steps:
        if isinstance(step, Stop):
            yield section, step
            section = []
        else:
            section.append(step)
    yield section, None


@torch.no_grad()
def _graph(parts: Parts, steps: Sequence[Step], behind: Sequence[Step], name: str) -> GraphProto:
    """Build the graph of a section; `behind` are the steps of the next one."""
    state = Writing(parts, Graph(), single=False, ahead=steps, x="x", shared="shared")
    spec, reads = parts.network.spec, parts.reads
    shapes = {"images": spec.input_size, "logits": [spec.num_classes], "x": reads[id(steps[0])].shape[1:]}
    shapes |= {"next_x": reads[id(behind[0])].shape[1:]} if behind else {}
    for before, step in itertools.pairwise(steps):
        if isinstance(before, Stem):
            shapes["shared"] = shapes["next_shared"] = reads[id(step)].shape[1:]
    read = [each for each in ("images", "x", "shared") if _reads(steps, each)]
    made = {"logits": write_steps(state)[0]}
    made |= {"next_x": state.x} if _reads(behind, "x") else {}
    made |= {"next_shared": state.shared} if any(isinstance(step, Stem) and step.kept for step in steps) else {}
    for output, value in made.items():
        state.graph.nodes.append(helper.make_node("Identity", [value], [output], name=output))
    inputs, outputs = (
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["N", *shapes[each]]) for each in names]
        for names in (read, made)
    )
    return helper.make_graph(state.graph.nodes, name, inputs, outputs, state.graph.tensors)


def _reads(steps: Sequence[Step], value: str) -> bool:
    """Whether the steps of a section read a value that they do not make."""
    stems = [step for step in steps if isinstance(step, Stem)]
    if value == "x":
        return bool(steps) and not isinstance(steps[0], View | Stem)
    return any(stem.shared == (value == "shared") for stem in stems)
