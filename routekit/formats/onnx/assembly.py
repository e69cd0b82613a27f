"""Put a routed network together as one ONNX graph that skips what an image does not need.

Two forms that route, with the same decisions:
  single  for one image: every unit is the branch of an `If`
  batch   for any number: inside the branch, the images that run the unit are gathered, computed and put back
A network that decides nothing has no `If` in either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from routekit.execution.executor import segments
from routekit.formats.onnx.graph import Graph
from routekit.formats.onnx.group import Group
from routekit.formats.onnx.parts import Parts
from routekit.network.deciders import LearnedDecider
from routekit.network.program import Classify, Combine, Head, Interpreter, Stem, Step, Stop, Units, View, layout_of

Form = Literal["single", "batch", "dense"]


@dataclass
class Writing:
    """A program half written: the names of the values that it has made so far, of the images that are still there.

    `images` are as the first view sees them, `columns` the margins `[N]` of the decisions in this section.
    """

    assembly: "Assembly"
    images: str
    x: str = ""
    view: str = ""
    shared: str = ""
    answer: str = ""
    heads: int = 0
    policy: str = ""
    columns: list[str] | None = None


write: Interpreter[Writing] = Interpreter("ONNX")


class Assembly:
    """Builds the graph of one network from its parts."""

    def __init__(self, parts: Parts, form: Form) -> None:
        self.parts, self.single = parts, form == "single"
        self.network, self.graph = parts.network, Graph()

    @torch.no_grad()
    def build(self, name: str) -> GraphProto:
        """Images "images" `[N, C, H, W]`, normalised -> "logits" `[N, classes]` and "margins" `[N, columns]`.

        N = 1 if the form is for single images.
        """
        spec, graph = self.network.spec, self.graph
        rows = 1 if self.single else "N"
        columns = len(self.network.columns)
        logits, *margins = self.rest(self.network.steps, Writing(self, "images", columns=[]))
        made = {"logits": logits, "margins": margins[0] if margins else self.nothing(logits, 0)}
        for output, value in made.items():
            graph.nodes.append(helper.make_node("Identity", [value], [output], name=output))
        return helper.make_graph(
            graph.nodes,
            name,
            [value_info("images", [rows, *spec.input_size])],
            [value_info("logits", [rows, spec.num_classes]), value_info("margins", [rows, columns])],
            graph.tensors,
        )

    def rest(self, steps: Sequence[Step], state: Writing) -> list[str]:
        """Write the steps that are left: the answers `[N, classes]` and, if there are any, the margins `[N, n]`."""
        for place, step in enumerate(steps):
            if isinstance(step, Stop):
                return self.stop(step, steps[place + 1 :], state)
            write.table[type(step)](step, state)
        return [state.answer, self.table(state.columns)] if state.columns else [state.answer]

    def stop(self, step: Stop, ahead: Sequence[Step], state: Writing) -> list[str]:
        """Let the images that stop leave: what is behind is computed for the others alone."""
        graph = self.graph
        onwards = self.onwards(step, state)
        goes = graph.add("GreaterOrEqual", graph.add("Reshape", onwards, graph.constant([-1])), graph.constant(0.0))
        own = [*([self.table(state.columns)] if state.columns else []), onwards]
        behind = len(layout_of(ahead).sections)
        nothing = [self.nothing(state.answer, behind)] if behind else []

        def then() -> list[str]:
            if self.single:
                return self.rest(ahead, replace(state, columns=[]))
            rows = graph.rows(goes)
            chosen = {name: graph.add("GatherND", getattr(state, name), rows) for name in needed(ahead)}
            found = self.rest(ahead, replace(state, columns=[], **chosen))
            whole = zip([state.answer, *nothing], found, strict=True)
            return [graph.add("ScatterND", all_, rows, some) for all_, some in whole]

        condition = goes if self.single else graph.anyone(goes)
        answer, *margins = graph.choose(condition, then, lambda: [state.answer, *nothing], f"past/{step.name}")
        return [answer, graph.add("Concat", *own, *margins, axis=1) if len(own + margins) > 1 else own[0]]

    def onwards(self, step: Stop, state: Writing) -> str:
        """How much each image prefers to go on, `[N, 1]`."""
        graph, parts, decider = self.graph, self.parts, step.decider
        if not isinstance(decider, LearnedDecider):
            return graph.place(parts.margin(step), state.answer, f"past/{step.name}")
        summary = graph.place(parts.summary(step), state.x, "summary")
        measures = graph.place(parts.measures(step), state.answer, "measures")
        read = graph.add("Concat", summary, measures, axis=1)
        return graph.place(parts.margin(step), read, f"past/{step.name}")

    def nothing(self, like: str, columns: int) -> str:
        """The margins of decisions that nobody takes, `[N, columns]`, for the images of `like` `[N, k]`."""
        graph = self.graph
        batch = graph.add("Slice", graph.add("Shape", like), graph.constant([0]), graph.constant([1]))
        shape = graph.add("Concat", batch, graph.constant([columns]), axis=0)
        return str(graph.add("Expand", graph.constant(-np.inf), shape))

    def table(self, columns: Sequence[str] | None) -> str:
        """Put columns `[N]` side by side: `[N, n]`."""
        columns = columns or []
        rows = self.graph.add("Concat", *columns, axis=0)
        rows = self.graph.add("Reshape", rows, self.graph.constant([len(columns), -1]))
        return str(self.graph.add("Transpose", rows, perm=[1, 0]))


def needed(ahead: Sequence[Step]) -> list[str]:
    """Of what has been made so far, what the steps ahead read."""
    views = [place for place, step in enumerate(ahead) if isinstance(step, View)]
    here = ahead[: views[0]] if views else ahead
    surveyed = [
        step for step in here if isinstance(step, Units) and step.routers is not None and step.routers.sees_image
    ]
    reads = {
        "images": bool(views),
        "x": bool(here) and isinstance(here[0], Units | Classify | Head),
        "view": bool(surveyed),
        "shared": any(isinstance(step, Stem) and step.shared for step in here),
        "answer": any(isinstance(step, Head) and step.combine != "replace" for step in ahead),
        "policy": any(step.first > 0 for step in surveyed),
    }
    return [name for name, needs in reads.items() if needs]


@write.on(View)
def _view(step: View, state: Writing) -> None:
    graph, ours, theirs = state.assembly.graph, state.assembly.network.spec, step.spec
    state.view = state.images
    if (ours.mean, ours.std) != (theirs.mean, theirs.std):
        mean, std, its_mean, its_std = (
            np.asarray(each, dtype=np.float32).reshape(1, -1, 1, 1)
            for each in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        scaled = graph.add("Mul", state.view, graph.constant(std / its_std))
        state.view = graph.add("Add", scaled, graph.constant((mean - its_mean) / its_std))
    if step.mirrored:
        state.view = graph.mirrored(state.view)


@write.on(Stem)
def _stem(step: Stem, state: Writing) -> None:
    if step.shared:
        state.x = state.shared
    else:
        state.x = state.shared = state.assembly.graph.place(state.assembly.parts.stem(step), state.view, "stem")


@write.on(Units)
def _units(step: Units, state: Writing) -> None:
    assembly, routers = state.assembly, step.routers
    assert state.columns is not None
    if routers is not None and routers.sees_image and step.first == 0:
        state.policy = assembly.graph.place(assembly.parts.policy(routers), state.view, "policy")
    for segment in segments(step):
        if segment.junctions:
            assert routers is not None
            policy = state.policy if routers.sees_image else ""
            group = Group(assembly.parts, assembly.graph, routers, segment, policy, single=assembly.single)
            state.x = group.write(state.x, state.columns)
        elif segment.units[0].computes:
            unit = segment.units[0]
            state.x = assembly.graph.place(assembly.parts.run(unit), state.x, unit.name)


@write.on(Classify)
def _classify(step: Classify, state: Writing) -> None:
    assembly = state.assembly
    _answer(state, assembly.graph.place(assembly.parts.classify(step), state.x, f"exit/{step.name}"), "replace")


@write.on(Head)
def _head(step: Head, state: Writing) -> None:
    _answer(state, state.assembly.graph.place(state.assembly.parts.head(step), state.x, "head"), step.combine)


@write.on(Stop)
def _stop(step: Stop, state: Writing) -> None:
    raise AssertionError(f"what lies behind {step.name} is written inside of a branch: {state.assembly.stop}")


def _answer(state: Writing, logits: str, combine: Combine) -> None:
    graph = state.assembly.graph
    if not state.answer or combine == "replace":
        state.answer, state.heads = logits, 1
        return
    share = 1 / (state.heads + 1)
    state.heads += 1
    before = state.answer
    if combine == "mean":
        before, logits = (graph.add("Softmax", each, axis=1) for each in (before, logits))
    parts = (before, 1 - share), (logits, share)
    mean = graph.add("Add", *(graph.add("Mul", each, graph.constant(weight)) for each, weight in parts))
    if combine == "mean":
        least = graph.constant(float(torch.finfo(torch.float32).tiny))
        mean = graph.add("Log", graph.add("Max", mean, least))
    state.answer = mean


def value_info(name: str, shape: list[Any]) -> ValueInfoProto:
    """Describe an input or output, float32."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
