"""A convolution of stride 2 that reads blocks of pixels is the same function."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from routekit.formats.onnx.stem import read_in_blocks


def convolution(kernel: tuple[int, ...], side: int = 12, **settings: Any) -> onnx.ModelProto:
    """One convolution of stride 2 of "images" `[N, C, side, side]`, or `[N, C, side]`, with random weights `kernel`."""
    sides = [side] * len(kernel[2:])
    weight = np.random.default_rng(0).normal(size=kernel).astype(np.float32)
    node = helper.make_node(
        "Conv", ["images", "weight"], ["logits"], name="conv", **({"strides": [2] * len(sides)} | settings)
    )
    channels = kernel[1] * settings.get("group", 1)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", channels, *sides])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"images": x})[0]
    return found


@given(
    taps=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    side=st.sampled_from([8, 10, 14]),
    channels=st.sampled_from([1, 3, 5]),
)
@settings(max_examples=60, deadline=None)
def test_blocks_are_the_same_function(taps: tuple[int, int], pads: list[int], side: int, channels: int) -> None:
    model = convolution((4, channels, *taps), side, pads=pads)
    x = np.random.default_rng(1).normal(size=(2, channels, side, side)).astype(np.float32)
    want = answer(model, x)
    read_in_blocks(model)
    assert [node.op_type for node in model.graph.node] == ["SpaceToDepth", "Conv"]
    got = answer(model, x)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "side", "changed"),
    [
        ((8, 3, 3, 3), 13, {}),  # half a block would be left
        ((8, 4, 3, 3), 12, {}),  # the channels come by the four already
        ((8, 3, 3, 3), 12, {"strides": [1, 1]}),
        ((8, 3, 3, 3), 12, {"strides": [2, 1]}),
        ((8, 3, 3, 3), 12, {"dilations": [2, 2]}),
        ((9, 1, 3, 3), 12, {"group": 3}),
        ((8, 3, 3, 3), 12, {"auto_pad": "SAME_UPPER"}),
        ((8, 3, 3), 12, {}),  # of one dimension, as in ECA
    ],
)
def test_other_convolutions_stay(kernel: tuple[int, ...], side: int, changed: dict[str, Any]) -> None:
    model = convolution(kernel, side, **changed)
    before = model.SerializeToString()
    read_in_blocks(model)
    assert model.SerializeToString() == before
