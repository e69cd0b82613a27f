"""Exported files of networks with exits and branches, and of cascades: one decides as the other."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from routekit.cost.cascade import CascadeCost
from routekit.execution.prepare import prepare
from routekit.export.onnx.file import save_onnx
from routekit.export.onnx.piece import Exporter
from routekit.export.openvino import save_openvino
from routekit.export.program import save_program
from routekit.network.cascade import Cascade
from routekit.runtime.load import load_runtime
from tests.runtime.parity import ABOUT, images, routed, same
from tests.toy import small_branches, toy_exits


@pytest.mark.parametrize(("offset", "skips"), [(0.0, True), (0.0, False), (-100.0, True)])
def test_a_network_with_exits_decides_alike_in_every_file(
    tmp_path: Path, offset: float, skips: bool, exporter: Exporter
) -> None:
    network = toy_exits(seed=3, offset=offset, skips=skips)
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
        same(load_runtime(tmp_path / str(native)), network)
    if offset == 0:
        save_program(tmp_path / "torch", network, ABOUT)
        same(load_runtime(tmp_path / "torch"), network)
    # What lies behind the first exit is inside of a branch: outside are the stem, the first unit and the exit itself.
    graph = onnx.load(tmp_path / "False" / "single.onnx").graph
    assert [node.op_type for node in graph.node].count("Conv") == (4 if skips else 5)


@pytest.mark.parametrize(("cascade", "ways"), [(False, "narrow"), (True, "skip or narrow")])
def test_branches_are_in_every_file(tmp_path: Path, cascade: bool, ways: str, exporter: Exporter) -> None:
    network = small_branches(3, ways=ways, cascade=cascade, depth=8)
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
    if not cascade:
        return
    save_program(tmp_path / "torch", network, ABOUT)
    same(load_runtime(tmp_path / "torch"), network)
    save_openvino(tmp_path / "openvino", [tmp_path / "False" / "single.onnx", tmp_path / "False" / "batch.onnx"])
    same(load_runtime(tmp_path / "openvino"), network)


@pytest.mark.parametrize(("rule", "average"), [("confidence", False), ("entropy", True), ("learned", False)])
def test_a_cascade_is_one_file(tmp_path: Path, rule: str, average: bool, exporter: Exporter) -> None:
    stages = [routed(), toy_exits(seed=3)]
    spec = stages[1].view.spec
    stages[1].view.spec = replace(spec, mean=(0.4, 0.5, 0.6), std=(0.3, 0.3, 0.2))
    cascade = Cascade(stages, rule=rule, average=average)
    x = images(7)
    threshold = float(between_two_certainties(cascade, x))
    for limit in (threshold, -1.0, 1.0) if rule == "confidence" else (threshold,):
        cascade.threshold.fill_(limit)
        files = save_onnx(tmp_path, cascade, ABOUT, exporter)
        # OpenVINO takes its time.
        others = save_openvino(tmp_path / "openvino", files[:1]) if limit == threshold and average else []
        for file in [*files, *others, tmp_path]:
            runtime = load_runtime(file)
            assert runtime.description.columns == cascade.columns
            for count in (1, 2, 7):
                want, got = cascade(images(count)), runtime(images(count))
                assert torch.equal(got.routes, want.routes)
                torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=1e-4)
                paid = CascadeCost.measure(prepare(cascade)).of_routes(want.routes)
                assert torch.equal(runtime.description.costs.of_routes(got.routes), paid)


@torch.no_grad()
def between_two_certainties(cascade: Cascade, x: torch.Tensor) -> torch.Tensor:
    """A threshold by which some images are answered by the first network, and some are not."""
    margins = cascade(x, threshold=1.0).margins[:, cascade.places[1].start - 1]
    sure = (1 - margins).sort().values
    return (sure[3] + sure[4]) / 2
