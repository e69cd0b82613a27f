"""Put a routed network together as one ONNX graph that skips what an image does not need.

Two forms that route, with the same decisions:
  single  for one image: every unit is the branch of an `If`
  batch   for any number: inside the branch, the images that run the unit are gathered and computed
A network that decides nothing has no `If` in either.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from onnx import GraphProto, TensorProto, helper

from routekit.execution.executor import segments
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.group import Group
from routekit.formats.onnx.parts import Parts
from routekit.network.program import Classify, Combine, Head, Interpreter, Stem, Step, Stop, Units, View, layout_of

Form = Literal["single", "batch", "dense"]


@dataclass
class Writing:
    """A program half written: the names of the values that it has made so far, of the images that are still there.

    Attributes:
        ahead: The steps that are not written yet.
        images: The images as the first view sees them.
        columns: The margins `[N]` of the decisions in this section.
        behind: The margins `[N, n]` of the decisions behind the stop at its end, if there are any.
    """

    parts: Parts
    graph: Graph
    single: bool
    ahead: Sequence[Step]
    images: str = "images"
    x: str = ""
    view: str = ""
    shared: str = ""
    answer: str = ""
    heads: int = 0
    policy: str = ""
    columns: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)


write: Interpreter[Writing] = Interpreter("ONNX")


@torch.no_grad()
def assemble(parts: Parts, form: Form) -> GraphProto:
    """Build the graph of a network.

    Args:
        parts: Its parts.
        form: For which numbers of images N; "single" is for one.

    Returns:
        Images "images" `[N, C, H, W]`, normalised -> "logits" `[N, classes]` and "margins" `[N, columns]`.
    """
    network, graph, rows = parts.network, Graph(), 1 if form == "single" else "N"
    logits, *margins = write_steps(Writing(parts, graph, form == "single", network.steps))
    margins = margins or [_nothing(graph, logits, 0)]
    for output, value in {"logits": logits, "margins": margins[0]}.items():
        graph.nodes.append(helper.make_node("Identity", [value], [output], name=output))
    images, *outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, *shape])
        for name, shape in {
            "images": network.spec.input_size,
            "logits": [network.spec.num_classes],
            "margins": [len(network.columns)],
        }.items()
    )
    return helper.make_graph(graph.nodes, network.name, [images], outputs, graph.tensors)


def write_steps(state: Writing) -> list[str]:
    """Write the steps ahead: the answers `[N, classes]` and, if there are any, the margins `[N, n]`."""
    while state.ahead:
        step, *state.ahead = state.ahead
        write.table[type(step)](step, state)
    if not state.columns:
        return [state.answer]
    graph = state.graph
    rows = graph.add("Concat", *state.columns, axis=0)
    rows = graph.add("Reshape", rows, graph.constant([len(state.columns), -1]))
    margins = graph.add("Transpose", rows, perm=[1, 0])
    return [state.answer, graph.add("Concat", margins, *state.behind, axis=1) if state.behind else margins]


def _nothing(graph: Graph, like: str, columns: int) -> str:
    """The margins of decisions that are not met, `[N, columns]`, for the images of `like` `[N, k]`."""
    shape = graph.add("Concat", graph.add("Shape", like, end=1), graph.constant([columns]), axis=0)
    return graph.add("Expand", graph.constant(-np.inf), shape)


@write.on(View)
def _view(step: View, state: Writing) -> None:
    state.view = state.graph.place(state.parts.view(step), "view", state.images)


@write.on(Stem)
def _stem(step: Stem, state: Writing) -> None:
    if not step.shared:
        state.shared = state.graph.place(state.parts.of_step(step), "stem", state.view)
    state.x = state.shared


@write.on(Units)
def _units(step: Units, state: Writing) -> None:
    parts, graph, routers = state.parts, state.graph, step.routers
    if routers is not None and routers.sees_image and step.first == 0:
        state.policy = graph.place(parts.policy(routers), "policy", state.view)
    for segment in segments(step):
        if segment.junctions:
            assert routers is not None
            policy = state.policy if routers.sees_image else ""
            group = Group(parts, graph, routers, segment, policy, single=state.single)
            state.x = group.write(state.x, state.columns)
        else:
            state.x = graph.place(parts.run(segment.units), segment.units[-1].name, state.x)


@write.on(Classify)
def _classify(step: Classify, state: Writing) -> None:
    _answer(state, state.graph.place(state.parts.of_step(step), f"exit/{step.name}", state.x), "replace")


@write.on(Head)
def _head(step: Head, state: Writing) -> None:
    _answer(state, state.graph.place(state.parts.of_step(step), "head", state.x), step.combine)


def _answer(state: Writing, logits: str, combine: Combine) -> None:
    if not state.answer or combine == "replace":
        state.answer, state.heads = logits, 1
    else:
        mean = state.parts.combined(state.heads, combine)
        state.answer, state.heads = state.graph.place(mean, "mean", state.answer, logits), state.heads + 1


@write.on(Stop)
def _stop(step: Stop, state: Writing) -> None:
    """Let the images that stop leave: what is behind is computed for the others alone."""
    graph, parts = state.graph, state.parts
    ahead, state.ahead = state.ahead, []
    reads, summary = [state.answer], parts.of_step(step)
    if summary is not None:
        reads.append(graph.place(summary, "summary", state.x))
    onwards = graph.place(parts.margin(step), f"past/{step.name}", *reads)
    state.columns.append(graph.add("Reshape", onwards, graph.constant([-1])))
    goes = graph.add("GreaterOrEqual", state.columns[-1], graph.constant(0.0))
    columns = len(layout_of(ahead).sections)
    values = [state.answer, *([_nothing(graph, state.answer, columns)] if columns else [])]

    def then() -> list[str]:
        there = replace(state, ahead=ahead, columns=[])
        if state.single:
            return write_steps(there)
        rows = graph.rows(goes)
        for name in _needed(ahead):
            setattr(there, name, graph.add("GatherND", getattr(state, name), rows))
        found = write_steps(there)
        return [graph.add("ScatterND", every, rows, some) for every, some in zip(values, found, strict=True)]

    condition = goes if state.single else graph.anyone(goes)
    state.answer, *state.behind = graph.choose(condition, then, lambda: values, f"past/{step.name}")


def _needed(ahead: Sequence[Step]) -> list[str]:
    """Of what has been made so far, what the steps ahead read."""
    here = list(itertools.takewhile(lambda step: not isinstance(step, View), ahead))
    surveyed = [step.first for step in here if isinstance(step, Units) and step.routers and step.routers.sees_image]
    reads = {
        "images": len(here) < len(ahead),
        "x": bool(here) and isinstance(here[0], Units | Classify | Head),
        "view": 0 in surveyed,
        "shared": any(isinstance(step, Stem) and step.shared for step in here),
        "answer": any(isinstance(step, Head) and step.combine != "replace" for step in ahead),
        "policy": any(surveyed),
    }
    return [name for name, needs in reads.items() if needs]
