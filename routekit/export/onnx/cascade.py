"""A cascade as one ONNX graph: a network that does not know asks the next, inside of a branch."""

import numpy as np
import torch
from onnx import GraphProto, helper

from routekit.export.onnx.assembly import Assembly, Form, value
from routekit.export.onnx.graph import Graph
from routekit.export.onnx.parts import Parts
from routekit.network.cascade import Cascade


class CascadeAssembly:
    """Builds the graph of a cascade from its networks' parts, in order. The dense form is the last network's."""

    def __init__(self, cascade: Cascade, parts: list[Parts], form: Form) -> None:
        self.cascade, self.form = cascade, form
        self.graph = Graph()
        self.networks = [Assembly(own, form, self.graph) for own in parts]

    @torch.no_grad()
    def build(self) -> GraphProto:
        """Images "images" [N, C, H, W], normalised as for the first network -> "logits" and "margins", as Assembly's.

        The logits are log-probabilities.
        """
        if self.form == "dense":
            return self.networks[-1].build()
        graph, spec = self.graph, self.cascade.spec
        probabilities, margins = self._rest(0, "images", "")
        least = graph.constant(float(torch.finfo(torch.float32).tiny))
        clamped = graph.add("Max", probabilities, least)
        graph.nodes.append(helper.make_node("Log", [clamped], ["logits"], name="logits"))
        graph.nodes.append(helper.make_node("Identity", [margins], ["margins"], name="margins"))
        rows = 1 if self.form == "single" else "N"
        return helper.make_graph(
            graph.nodes,
            "cascade",
            [value("images", [rows, *spec.input_size])],
            [value("logits", [rows, spec.num_classes]), value("margins", [rows, len(self.cascade.columns)])],
            graph.tensors,
        )

    def _rest(self, number: int, images: str, before: str) -> list[str]:
        """Ask a network and, where it does not know, those after it: probabilities [N, classes], margins [N, n].

        `before` are the probabilities that the networks before it have come to.
        """
        graph = self.graph
        logits, margins = self.networks[number].answers(self._as_for(number, images))
        probabilities = graph.add("Softmax", logits, axis=1)
        if self.cascade.average and before:
            known = graph.add("Mul", before, graph.constant(number / (number + 1)))
            probabilities = graph.add("Add", known, graph.add("Mul", probabilities, graph.constant(1 / (number + 1))))
        if number + 1 == len(self.networks):
            return [probabilities, margins]
        doubt = graph.add("Sub", graph.constant(float(self.cascade.threshold)), self._certainty(number, probabilities))
        asks = graph.add("GreaterOrEqual", graph.add("Reshape", doubt, graph.constant([-1])), graph.constant(0.0))
        columns = len(self.cascade.columns) - self.cascade.places[number + 1].start

        def nothing() -> str:
            """The margins of decisions that nobody takes."""
            return self.networks[number].nothing(probabilities, columns)

        def then() -> list[str]:
            if self.form == "single":
                return self._rest(number + 1, images, probabilities)
            rows = graph.rows(asks)
            chosen = [graph.add("GatherND", each, rows) for each in (images, probabilities)]
            found = self._rest(number + 1, *chosen)
            whole = zip([probabilities, nothing()], found, strict=True)
            return [graph.add("ScatterND", all_, rows, some) for all_, some in whole]

        condition = asks if self.form == "single" else graph.anyone(asks)
        answer, behind = graph.choose(condition, then, lambda: [probabilities, nothing()], f"ask {number + 1}")
        return [answer, graph.add("Concat", margins, doubt, behind, axis=1)]

    def _certainty(self, number: int, probabilities: str) -> str:
        """How sure a network is: [N, 1] (`routing/certainty.py`)."""
        graph = self.graph
        if self.cascade.rule == "confidence":
            return str(graph.add("ReduceMax", probabilities, graph.constant([1])))
        if self.cascade.rule == "entropy":
            return self._negentropy(probabilities)
        known = self.cascade.learned[number]
        two, _ = graph.add("TopK", probabilities, graph.constant([2]), outputs=2, axis=1)
        first, second = graph.add("Split", two, outputs=2, axis=1, num_outputs=2)
        measures = graph.add("Concat", first, graph.add("Sub", first, second), self._negentropy(probabilities), axis=1)
        weight, bias = known.weight.detach().numpy().reshape(-1, 1), known.bias.detach().numpy().reshape(1)
        return str(graph.add("Sigmoid", graph.add("Gemm", measures, graph.constant(weight), graph.constant(bias))))

    def _negentropy(self, probabilities: str) -> str:
        graph = self.graph
        # 0 log 0 is 0: what is nearly 0 is multiplied by a logarithm that is finite.
        logs = graph.add("Log", graph.add("Max", probabilities, graph.constant(float(np.finfo(np.float32).tiny))))
        entropy = graph.add("ReduceSum", graph.add("Mul", probabilities, logs), graph.constant([1]))
        share = graph.add("Mul", entropy, graph.constant(1 / float(np.log(self.cascade.spec.num_classes))))
        return str(graph.add("Add", share, graph.constant(1.0)))

    def _as_for(self, number: int, images: str) -> str:
        """Images normalised as for the first network -> as a network wants them."""
        ours, theirs = self.cascade.spec, self.cascade.networks[number].spec
        if (ours.mean, ours.std) == (theirs.mean, theirs.std):
            return images
        mean, std, its_mean, its_std = (
            np.asarray(each, dtype=np.float32).reshape(1, -1, 1, 1)
            for each in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        scaled = self.graph.add("Mul", images, self.graph.constant(std / its_std))
        return str(self.graph.add("Add", scaled, self.graph.constant((mean - its_mean) / its_std)))
