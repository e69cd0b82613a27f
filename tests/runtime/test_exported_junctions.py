"""Exported files of networks with stops and branches, and of joined networks: one decides as the other."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from routekit.cost.table import CostTable
from routekit.execution.prepare import prepare
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.formats.openvino import save_openvino
from routekit.formats.program import save_program
from routekit.junctions.convert import join
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.network.program import View
from routekit.runtime.load import load_runtime
from tests.runtime.parity import ABOUT, as_of_a_library, images, routed, same
from tests.toy import small_branches, toy_exits


@pytest.mark.parametrize(("bias", "skips"), [(0.0, True), (0.0, False), (-100.0, True)])
def test_a_network_with_exits_decides_alike_in_every_file(
    tmp_path: Path, bias: float, skips: bool, exporter: Exporter
) -> None:
    network = as_of_a_library(toy_exits(seed=3, bias=bias, skips=skips))
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
        same(load_runtime(tmp_path / str(native)), network)
    if bias == 0:
        save_program(tmp_path / "torch", network, ABOUT)
        same(load_runtime(tmp_path / "torch" / "masked.pt2", trust=True), network)
    # What lies behind the first stop is inside of a branch: outside are the stem, the first unit and the exit itself.
    graph = onnx.load(tmp_path / "False" / "single.onnx").graph
    assert [node.op_type for node in graph.node].count("Conv") == (4 if skips else 5)


def test_branches_are_in_every_file(tmp_path: Path, exporter: Exporter) -> None:
    network = small_branches(3, sinks="skip or narrow", cascade=True, depth=8)
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
    save_program(tmp_path / "torch", network, ABOUT)
    same(load_runtime(tmp_path / "torch" / "masked.pt2", trust=True), network)


@pytest.mark.parametrize(("rule", "average"), [("confidence", False), ("entropy", True), ("idk", False)])
def test_joined_networks_are_one_file(tmp_path: Path, rule: str, average: bool, exporter: Exporter) -> None:
    second = as_of_a_library(toy_exits(seed=3))
    second.view.spec = replace(second.spec, mean=(0.4, 0.5, 0.6), std=(0.3, 0.3, 0.2))
    for step in second.steps:
        if isinstance(step, View):
            step.spec = second.view.spec
    network = join([routed(), second], rule=rule, average=average)
    costs = CostTable.measure(prepare(network))
    threshold = between_two_certainties(network, images(7))
    for limit in (threshold, -1.0, 1.0) if rule == "confidence" else (threshold,):
        network.deciders[0].bias.fill_(limit)
        files = save_onnx(tmp_path, network, ABOUT, exporter)
        # OpenVINO takes its time.
        others = save_openvino(tmp_path / "openvino", files[:1]) if limit == threshold and average else []
        for file in [*files, *others, tmp_path]:
            runtime = load_runtime(file)
            assert runtime.description.columns == network.columns
            for count in (1, 2, 7):
                with torch.no_grad():
                    want = network(images(count))
                got = runtime(images(count))
                assert torch.equal(got.routes, want.routes)
                torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=1e-4)
                assert torch.equal(runtime.description.costs.of_routes(got.routes), costs.of_routes(want.routes))


@torch.no_grad()
def between_two_certainties(network: RoutedNetwork, x: torch.Tensor) -> float:
    """A threshold by which some images are answered by the first network, and some are not."""
    margins = network(x, execution=masked).margins[:, network.layout.stops[0]]
    sure = (1 - margins).sort().values  # all go on at a threshold of 1
    return float((sure[3] + sure[4]) / 2)
