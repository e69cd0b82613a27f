"""What the quantiser stumbles over is written in another way, and is the same function."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from routekit.backbones.marked import mark_units
from routekit.backbones.unit import ModelSpec
from routekit.formats.onnx.passes import save_passes
from routekit.formats.onnx.piece import Exporter
from routekit.formats.onnx.quantizable import make_quantizable
from routekit.junctions.convert import convert
from routekit.runtime.passes import open_passes
from routekit.runtime.quantize import quantize_passes
from tests.runtime.parity import ABOUT


@pytest.mark.parametrize(("filled", "inputs"), [(0.0, 2), (1.5, 3)])
def test_padding_by_zeros_says_no_number(filled: float, inputs: int) -> None:
    values = {"sides": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "filled": np.array(filled, dtype=np.float32)}
    node = helper.make_node("Pad", ["x", "sides", "filled"], ["y"])
    shaped = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, side, side])
        for name, side in (("x", 3), ("y", 5))
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph([node], "pad", shaped[:1], shaped[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)

    def answer() -> np.ndarray:
        onnx.checker.check_model(model)
        found: np.ndarray = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
        return found

    before = answer()
    make_quantizable(model)
    assert len(model.graph.node[0].input) == len(model.graph.initializer) + 1 == inputs
    assert np.array_equal(answer(), before)


class Block(nn.Module):
    """Its groups are normalised by ones and zeros that all blocks share in a file; SiLU makes values of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(nn.functional.silu(self.norm(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 3)
        self.body = nn.Sequential(*(Block() for _ in range(7)))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.stem(x)).mean(dim=(2, 3)))


def test_weights_that_many_read_can_be_quantised(
    tmp_path: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routekit.formats.onnx.passes.Exporter", lambda: exporter)
    torch.manual_seed(0)
    spec = ModelSpec("custom", "Net", 3, (3, 8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
    network = convert(mark_units(Net(), [f"body.{number}" for number in range(7)], spec)).eval()
    x = torch.randn(32, 3, 8, 8)
    save_passes(tmp_path / "passes", network, ABOUT)
    quantize_passes(tmp_path / "passes", x)
    with torch.no_grad():
        want, got = network(x).logits, open_passes(tmp_path / "passes")(x).logits
    assert float(torch.corrcoef(torch.stack([got.flatten(), want.flatten()]))[0, 1]) > 0.97
