"""Answers images by the passes of a network: each pass runs on the images whose answer is not certain enough yet.

Triton's Python backend runs this file, which needs numpy alone. `passes.json`, beside it, names the model of each pass
and says how its answer is used; thresholds can be changed there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits `[B, classes]` -> probabilities."""
    powers: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def negentropy(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities `[B, classes]` -> `[B]`, one less their entropy, which is divided by its largest value."""
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    certainty: np.ndarray = 1 + (probabilities * logarithms).sum(axis=1) / np.float32(np.log(probabilities.shape[1]))
    return certainty


# By the name of a rule: class probabilities `[B, classes]` -> how certain the answer is, `[B]`.
CERTAINTIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "confidence": lambda probabilities: np.minimum(probabilities.max(axis=1), 1),
    "entropy": negentropy,
}


def combined(answer: np.ndarray | None, heads: int, logits: np.ndarray, combine: str) -> tuple[np.ndarray, int]:
    """Add the logits of a pass to the answer of `heads` passes before it -> the answer, and of how many it is."""
    if answer is None or combine == "replace":
        return logits, 1
    share = 1 / (heads + 1)
    if combine == "mean-logits":
        return answer * (heads * share) + logits * share, heads + 1
    mean = softmax(answer) * (heads * share) + softmax(logits) * share
    return np.log(np.maximum(mean, np.finfo(mean.dtype).tiny)), heads + 1


def answer_images(
    images: np.ndarray,
    passes: Sequence[Mapping[str, Any]],
    run: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Answer a batch of any size.

    Args:
        images: `[B, C, H, W]`, float32, normalised.
        passes: The passes, as in `passes.json`.
        run: A pass, and all values by name -> what the pass gives, by name.

    Returns:
        Logits `[B, classes]`, and how many passes ran for each image, `[B]`.
    """
    values, rows = {"images": images}, np.arange(len(images))
    answer, heads, ran = None, 0, np.zeros(len(images), dtype=np.int32)
    for number, each in enumerate(passes):
        made = run(each, values)
        answer, heads = combined(answer, heads, made["logits"], each["combine"])
        if number == 0:
            logits = answer.copy()
        logits[rows] = answer
        ran[rows] += 1
        if each["rule"] is None:
            break
        on = np.flatnonzero(CERTAINTIES[each["rule"]](softmax(answer)) <= each["threshold"])
        if not len(on):
            break
        rows, answer = rows[on], answer[on]
        values |= {name.removeprefix("next_"): value for name, value in made.items() if name != "logits"}
        values = {name: value[on] for name, value in values.items()}
    return logits, ran


class TritonPythonModel:
    """The model that joins the passes. Requests that come together are answered as one batch."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read which passes there are."""
        del args
        self.passes = json.loads(Path(__file__).with_name("passes.json").read_text())["passes"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests: "images" -> "logits", and "passes", how many passes ran for each image."""
        import triton_python_backend_utils as triton

        def run(each: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            request = triton.InferenceRequest(
                model_name=each["model"],
                requested_output_names=each["gives"],
                inputs=[triton.Tensor(name, values[name]) for name in each["reads"]],
                preferred_memory=triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU),
            )
            response = request.exec()
            if response.has_error():
                raise triton.TritonModelException(response.error().message())
            found = {name: triton.get_output_tensor_by_name(response, name) for name in each["gives"]}
            return {name: tensor.as_numpy() for name, tensor in found.items()}

        parts = [triton.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        logits, ran = answer_images(np.concatenate(parts), self.passes, run)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [
            triton.InferenceResponse([triton.Tensor("logits", answer), triton.Tensor("passes", count[:, np.newaxis])])
            for answer, count in zip(np.split(logits, ends), np.split(ran, ends), strict=True)
        ]
