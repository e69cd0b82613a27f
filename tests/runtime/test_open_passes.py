"""The passes of a cascade in onnxruntime, OpenVINO and torch: the same decisions and answers in all."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from routekit.errors import InputError
from routekit.execution.executor import Answer
from routekit.formats import triton_model
from routekit.formats.checkpoint import save_network
from routekit.formats.onnx.passes import save_passes, write_sequence
from routekit.formats.onnx.piece import Exporter
from routekit.junctions.convert import convert, join
from routekit.junctions.skip import Skip
from routekit.manifest import unverified
from routekit.network.forward import combined
from routekit.network.network import RoutedNetwork
from routekit.network.program import Combine
from routekit.routing.certainty import certainties
from routekit.runtime.passes import PassesRuntime, open_passes
from routekit.runtime.quantize import quantize_passes
from tests.formats.test_passes import NETWORKS, joined
from tests.network.test_again import set_thresholds
from tests.runtime.parity import ABOUT, images, same
from tests.toy import small_view

RUNTIMES = ("onnx", "openvino", "torch")


def written(folder: Path, network: RoutedNetwork, exporter: Exporter) -> dict[str, Path]:
    """Write a network for each runtime; returns where."""
    save_passes(folder / "passes", network, ABOUT, exporter)
    save_network(folder / "network", network, about=ABOUT)
    return {runtime: folder / ("network" if runtime == "torch" else "passes") for runtime in RUNTIMES}


def one_by_one(runtime: PassesRuntime, x: torch.Tensor) -> Answer:
    answers = [runtime(image) for image in torch.split(x, 1)]
    return Answer(torch.cat([each.logits for each in answers]), torch.cat([each.margins for each in answers]))


@pytest.mark.parametrize("name", NETWORKS)
def test_all_runtimes_answer_as_the_network_does(name: str, tmp_path: Path, exporter: Exporter) -> None:
    network = NETWORKS[name]()
    places = written(tmp_path, network, exporter)
    want = open_passes(places["onnx"])(images(16))
    for runtime, place in places.items():
        opened = open_passes(place, runtime, threads=1)
        same(opened, network, counts=(1, 2, 7, 16))
        assert opened.description.classes == ABOUT["classes"]
        assert opened.description.columns == network.columns
        alone = one_by_one(open_passes(place, runtime, batch=1, threads=1), images(16))
        assert torch.equal(alone.routes, want.routes)
        assert torch.equal(alone.logits.argmax(dim=1), want.logits.argmax(dim=1))
        torch.testing.assert_close(alone.logits, want.logits, rtol=1e-4, atol=1e-4)
        planned = open_passes(place, runtime, batch=16, threads=1)(images(16))
        torch.testing.assert_close(planned.logits, want.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["averaged", "exits", "narrow forms"])
def test_in_bfloat16_nearly_so(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    save_network(tmp_path, network, about=ABOUT)
    number = len(network.stops) + 1
    exact = open_passes(tmp_path, "torch", threads=1)
    halves = open_passes(tmp_path, "torch", precisions=["bf16"] * number, threads=1)
    answers = [[answer for answer, _ in each.steps(images(16).numpy())] for each in (exact, halves)]
    for want, got in zip(*answers, strict=True):
        assert got.dtype == np.float32
        assert not np.array_equal(got, want)
        np.testing.assert_allclose(got, want, rtol=0.05, atol=0.05)
    mixed = open_passes(tmp_path, "torch", precisions=["fp32"] + ["bf16"] * (number - 1), threads=1)
    assert np.array_equal(next(mixed.steps(images(16).numpy()))[0], answers[0][0])


def test_compiled_passes_answer_alike(tmp_path: Path) -> None:
    network = joined(average=True)
    save_network(tmp_path, network, about=ABOUT)
    # A warning, which fails here, would say that a pass was not compiled.
    same(open_passes(tmp_path, "torch", compiled=True, threads=1), network, counts=(1, 16))


def test_what_cannot_be_compiled_runs_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = joined(average=False)
    save_network(tmp_path, network, about=ABOUT)

    def fails(*_: object, **__: object) -> object:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.warns(RuntimeWarning, match=r"pass \d runs without the compiler: no compiler"):
        opened = open_passes(tmp_path, "torch", compiled=True)
    same(opened, network)


def test_images_stay_as_they_are(tmp_path: Path, exporter: Exporter) -> None:
    x = images(4).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    for runtime, place in written(tmp_path, joined(average=True), exporter).items():
        opened = open_passes(place, runtime)
        first = opened(x)
        kept = first.logits.clone()
        opened(images(8)[4:])
        assert torch.equal(x, before)
        assert torch.equal(first.logits, kept)  # the next call does not write over it


@pytest.mark.parametrize("by", ["onnxruntime", "nncf"])
def test_openvino_runs_int8_files(by: str, tmp_path: Path, exporter: Exporter) -> None:
    if by == "nncf":
        pytest.importorskip("nncf")
    files = save_passes(tmp_path, joined(average=True), ABOUT, exporter)
    x, floats = images(64), files[0].read_bytes()
    before = open_passes(tmp_path)(x)
    quantize_passes(tmp_path, x, by=by)
    assert files[0].read_bytes() != floats
    onnx, openvino = (open_passes(tmp_path, runtime)(x) for runtime in ("onnx", "openvino"))
    assert torch.equal(onnx.routes.sum(dim=0), before.routes.sum(dim=0))
    for one, other in ((onnx, openvino), (onnx, before)):
        assert float((one.logits.argmax(dim=1) == other.logits.argmax(dim=1)).double().mean()) > 0.9
    assert float((onnx.routes == openvino.routes).double().mean()) > 0.9


def test_a_quantiser_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown quantiser"):
        quantize_passes(tmp_path, images(1), by="ncf")
    monkeypatch.setitem(__import__("sys").modules, "nncf", None)
    with pytest.raises(InputError, match=r"nncf is not installed: pip install 'routekit\[nncf\]'"):
        quantize_passes(tmp_path, images(1), by="nncf")


def test_what_open_passes_refuses(tmp_path: Path) -> None:
    save_network(tmp_path / "joined", joined(average=True), about=ABOUT)
    save_network(tmp_path / "skips", convert(small_view(depth=8), [Skip()]), about=ABOUT)
    for precisions, message in (
        (["int8", "fp32", "fp32"], "not in int8: take bf16"),
        (["fp23"] * 3, "unknown precision 'fp23'"),
        (["fp32"], "has 3 passes, and 1 precisions are given"),
    ):
        with pytest.raises(InputError, match=message):
            open_passes(tmp_path / "joined", "torch", precisions=precisions)
    with pytest.raises(InputError, match="decides at units, or has learned to stop"):
        open_passes(tmp_path / "skips", "torch")
    with pytest.raises(InputError, match="unknown runtime 'onx'"):
        open_passes(tmp_path, "onx")
    with pytest.raises(InputError, match="precisions and compiled are for torch"):
        open_passes(tmp_path, "onnx", compiled=True)
    for runtime in ("onnx", "openvino"):
        with pytest.raises(InputError, match="lacks the pass after pass--1"):
            open_passes(tmp_path, runtime)
    (tmp_path / "pass-0.onnx").write_bytes(b"no graph")
    with unverified(), pytest.raises(InputError, match="cannot be opened by OpenVINO"):
        open_passes(tmp_path, "openvino")


@pytest.mark.parametrize("average", [False, True])
def test_a_sequence_of_networks_is_the_joined_one(average: bool, tmp_path: Path, exporter: Exporter) -> None:
    networks = [convert(small_view(seed, depth=8)) for seed in (3, 4, 5)]
    parts = [tmp_path / str(number) for number in range(3)]
    for part, network in zip(parts, networks, strict=True):
        save_passes(part, network, ABOUT, exporter)
    want = join(networks, average=average)
    set_thresholds(want)
    folder = tmp_path / "sequence"
    write_sequence(folder, [*parts, parts[0]], join([*networks, networks[0]]), ABOUT)
    files = write_sequence(folder, parts, want, ABOUT)
    assert sorted(folder.glob("*.onnx")) == files  # what was there before is gone
    for runtime in ("onnx", "openvino"):
        opened = open_passes(folder, runtime)
        same(opened, want, counts=(1, 2, 7, 16))
        assert opened.description.columns == want.columns
    assert len(torch.unique(open_passes(folder)(images(16)).routes, dim=0)) == 3


def test_a_sequence_may_mix_precisions(tmp_path: Path, exporter: Exporter) -> None:
    parts = [tmp_path / name for name in ("small", "large")]
    networks = [convert(small_view(seed, depth=8)) for seed in (3, 4)]
    for network, part in zip(networks, parts, strict=True):
        save_passes(part, network, ABOUT, exporter)
    quantize_passes(parts[0], images(32))
    alone = [open_passes(part)(images(16)).logits.numpy() for part in parts]
    both = join(networks, rule="entropy")
    for threshold, number in ((-1.0, 0), (2.0, 1)):
        both.set_bias(torch.tensor([threshold]))
        write_sequence(tmp_path / "both", parts, both, ABOUT)
        got = open_passes(tmp_path / "both")(images(16)).logits.numpy()
        np.testing.assert_allclose(got, alone[number], rtol=1e-4, atol=1e-4)


def test_parts_that_do_not_go_together(tmp_path: Path, exporter: Exporter) -> None:
    one, other, whole = (tmp_path / name for name in ("one", "other", "whole"))
    view = small_view(depth=8)
    networks = [convert(view), convert(small_view(1, depth=8))]
    save_passes(one, networks[0], ABOUT, exporter)
    save_passes(other, convert(replace(view, spec=replace(view.spec, mean=(0.0, 0.0, 0.0)))), ABOUT, exporter)
    save_passes(whole, joined(average=False), ABOUT, exporter)
    target = tmp_path / "target"
    for parts, message in (
        ([one, other], "does not take the images of .* to its classes"),
        ([one, whole], "does not hold the one pass of a static network"),
        ([one, tmp_path], "does not hold the one pass of a static network"),
        ([one], "has 2 passes, not 1"),
    ):
        with pytest.raises(InputError, match=message):
            write_sequence(target, parts, join(networks), ABOUT)
    save_passes(other, convert(view), {"classes": ["a", "b", "c"]}, exporter)
    with pytest.raises(InputError, match="to its classes"):
        write_sequence(target, [one, other], join(networks), ABOUT)
    assert not target.exists()


@given(arrays(np.float32, (5, 4), elements=st.floats(-30, 30, width=32)))
@settings(deadline=None)
def test_arrays_are_as_certain_as_tensors(logits: np.ndarray) -> None:
    assert {*triton_model.CERTAINTIES} == {*certainties}
    probabilities = torch.from_numpy(logits).double().softmax(dim=1)
    for rule, certainty in triton_model.CERTAINTIES.items():
        got = certainty(triton_model.softmax(logits))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, certainties[rule](probabilities), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("combine", get_args(Combine))
def test_arrays_are_combined_as_tensors_are(combine: Combine) -> None:
    first, second, third = np.random.default_rng(0).normal(scale=5, size=(3, 6, 4)).astype(np.float32)
    got, want, heads = None, None, 0
    for logits in (first, second, third):
        want, _ = combined(want, heads, torch.from_numpy(logits), combine)
        got, heads = triton_model.combined(got, heads, logits, combine)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
