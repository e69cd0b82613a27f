"""A model repository for Triton: its configuration, and the model that joins the passes, with a stand-in of Triton."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from routekit.formats.onnx.passes import save_passes
from routekit.formats.onnx.piece import Exporter
from routekit.formats.triton import MOST, to_triton
from routekit.formats.triton_model import answer_images
from routekit.runtime.load import load_runtime
from tests.formats.test_passes import NETWORKS
from tests.runtime.parity import ABOUT, images


def parsed(text: str) -> dict[str, list[Any]]:
    """A protocol buffer in text, as lists of its fields."""
    words = iter(re.findall(r'"[^"]*"|[\w.]+|[{}\[\]]', text))

    def message() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for word in words:
            if word == "}":
                break
            value = next(words)
            if value == "{":
                found.setdefault(word, []).append(message())
            elif value == "[":
                found[word] = [int(each) for each in iter(lambda: next(words), "]")]
            else:
                found.setdefault(word, []).append(json.loads(value) if value[0] in '"0123456789' else value)
        return found

    return message()


class Tensor(SimpleNamespace):
    def __init__(self, name: str, array: np.ndarray) -> None:
        super().__init__(name=name, array=array)

    def as_numpy(self) -> np.ndarray:
        return self.array


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A stand-in of Triton, which runs the ONNX models of the repository; the models asked, with how many rows."""
    seen: list[tuple[str, int]] = []

    class InferenceRequest(SimpleNamespace):
        def exec(self) -> SimpleNamespace:
            inputs = {tensor.name: tensor.array for tensor in self.inputs}
            seen.append((self.model_name, len(next(iter(inputs.values())))))
            file = tmp_path / self.model_name / "1" / "model.onnx"
            if not file.exists():
                error = SimpleNamespace(message=lambda: "no model of that name is loaded")
                return SimpleNamespace(has_error=lambda: True, error=lambda: error)
            session = onnxruntime.InferenceSession(file)
            found = session.run(self.requested_output_names, inputs)
            tensors = [Tensor(*each) for each in zip(self.requested_output_names, found, strict=True)]
            return SimpleNamespace(tensors=tensors, has_error=lambda: False)

    module = ModuleType("triton_python_backend_utils")
    by_name = lambda holder, name: next(tensor for tensor in holder.tensors if tensor.name == name)  # noqa: E731
    vars(module).update(
        Tensor=Tensor,
        InferenceRequest=InferenceRequest,
        InferenceResponse=lambda tensors: SimpleNamespace(tensors=tensors),
        PreferredMemory=lambda kind: kind,
        TRITONSERVER_MEMORY_CPU="cpu",
        TritonModelException=RuntimeError,
        get_input_tensor_by_name=by_name,
        get_output_tensor_by_name=by_name,
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def served(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({})
    return model


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "static"])
def test_it_answers_as_the_passes_do(
    name: str, tmp_path: Path, exporter: Exporter, asked: list[tuple[str, int]]
) -> None:
    files = save_passes(tmp_path, NETWORKS[name](), ABOUT, exporter)
    x = images(16)
    want = load_runtime(tmp_path)(x)
    to_triton(tmp_path)
    joining = next(tmp_path.glob("*/1/model.py"))
    # Three requests that come together are one batch, and are answered one by one.
    requests = [SimpleNamespace(tensors=[Tensor("images", part)]) for part in np.split(x.numpy(), [1, 6])]
    responses = served(joining).execute(requests)
    logits, passes = (np.concatenate([each.tensors[place].array for each in responses]) for place in (0, 1))
    assert [len(each.tensors[0].array) for each in responses] == [1, 5, 10]
    np.testing.assert_allclose(logits, want.logits, rtol=1e-5, atol=1e-6)
    assert passes.dtype == np.int32
    assert passes[:, 0].tolist() == (1 + want.routes.sum(dim=1)).tolist()
    # Each pass is asked once, about the images that get there.
    assert asked == [
        (f"{joining.parent.parent.name}_pass{number}", int((passes >= number).sum()))
        for number in range(1, len(files) + 1)
    ]
    assert 0 < asked[-1][1] < 16


def test_rows_are_put_back_where_they_came_from() -> None:
    """By hand: an image's only pixel is the logit of the first of two classes. Of 0.5 nobody is sure."""
    passes = [
        {"model": "first", "combine": "replace", "rule": "confidence", "threshold": 0.7},
        {"model": "second", "combine": "replace", "rule": None, "threshold": 0.0},
    ]
    given: list[list[float]] = []

    def run(each: Any, values: Any) -> dict[str, np.ndarray]:
        if each["model"] == "first":
            return {"logits": np.stack([values["images"], 0 * values["images"]], axis=1), "next_x": values["images"]}
        given.append(values["x"].tolist())
        return {"logits": np.stack([10 * values["x"], 0 * values["x"]], axis=1)}

    x = np.array([0.5, 3.0, -0.25, -4.0], dtype=np.float32)
    logits, ran = answer_images(x, passes, run)
    assert given == [[0.5, -0.25]]
    assert logits[:, 0].tolist() == [5.0, 3.0, -2.5, -4.0]
    assert ran.tolist() == [2, 1, 2, 1]
    assert answer_images(x[[1, 3]], passes, run)[1].tolist() == [1, 1]
    assert len(given) == 1  # nobody goes on: the second is not asked


def test_a_model_that_fails_says_why(tmp_path: Path, exporter: Exporter, asked: list[tuple[str, int]]) -> None:
    save_passes(tmp_path, NETWORKS["narrow forms"](), ABOUT, exporter)
    to_triton(tmp_path)
    model = served(next(tmp_path.glob("*/1/model.py")))
    next(tmp_path.glob("*_pass2/1/model.onnx")).unlink()
    with pytest.raises(RuntimeError, match="no model of that name is loaded"):
        model.execute([SimpleNamespace(tensors=[Tensor("images", images(16).numpy())])])
    assert len(asked) == 2


def test_the_configuration_is_that_of_the_models(tmp_path: Path, exporter: Exporter) -> None:
    files = save_passes(tmp_path, NETWORKS["narrow forms"](), ABOUT, exporter)
    written = to_triton(tmp_path)
    assert all(file.is_file() for file in written)
    assert not any(file.exists() for file in files)
    configs = {file.parent.name: parsed(file.read_text()) for file in tmp_path.glob("*/config.pbtxt")}
    name = next(iter(each for each in configs if "_pass" not in each))
    assert {*configs} == {name, *(f"{name}_pass{number}" for number in (1, 2, 3))}
    for folder, config in configs.items():
        assert config["name"] == [folder]
        assert config["max_batch_size"] == [MOST]
    joining = configs[name]
    assert joining["backend"] == ["python"]
    assert joining["input"] == [{"name": ["images"], "data_type": ["TYPE_FP32"], "dims": [3, 8, 8]}]
    assert [each["name"] for each in joining["output"]] == [["logits"], ["passes"]]
    assert joining["output"][0]["label_filename"] == ["labels.txt"]
    assert (tmp_path / name / "labels.txt").read_text() == "red\ngreen\nblue\n"
    document = json.loads((tmp_path / name / "1" / "passes.json").read_text())
    assert document["preprocessing"]["size"] == [8, 8]
    for each in document["passes"]:
        config = configs[each["model"]]
        assert config["platform"] == ["onnxruntime_onnx"]
        session = onnxruntime.InferenceSession(tmp_path / each["model"] / "1" / "model.onnx")
        for side, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
            assert [(v["name"][0], v["dims"]) for v in config[side]] == [(v.name, v.shape[1:]) for v in values]
            assert all(isinstance(value.shape[0], str) for value in values)  # any number of images


def test_a_static_network_is_one_model(tmp_path: Path, exporter: Exporter) -> None:
    save_passes(tmp_path, NETWORKS["static"](), ABOUT, exporter)
    want = load_runtime(tmp_path)(images(3)).logits
    to_triton(tmp_path)
    (config,) = tmp_path.glob("*/config.pbtxt")
    assert parsed(config.read_text())["platform"] == ["onnxruntime_onnx"]
    session = onnxruntime.InferenceSession(config.parent / "1" / "model.onnx")
    np.testing.assert_allclose(session.run(["logits"], {"images": images(3).numpy()})[0], want, rtol=1e-5, atol=1e-6)
