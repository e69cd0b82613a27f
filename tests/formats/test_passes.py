"""A cascade as one plain graph for each pass: the same decisions and answers as the network's."""

from pathlib import Path

import onnx
import pytest
import torch

from routekit.errors import ExportError, InputError
from routekit.formats.onnx.passes import save_passes
from routekit.formats.onnx.piece import Exporter
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert, join
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.manifest import unverified
from routekit.network.network import RoutedNetwork
from routekit.runtime.load import load_runtime
from routekit.runtime.quantize import quantize_passes
from tests.network.test_again import looking, set_thresholds
from tests.runtime.parity import ABOUT, images, same
from tests.toy import small_view


def parted(*junctions: Junction) -> RoutedNetwork:
    """A small network; some images are answered at each of its stops."""
    torch.manual_seed(0)
    view = small_view(depth=8)
    view.model.linear.weight.data.mul_(0.2)
    network = convert(view, list(junctions)).eval()
    set_thresholds(network)
    return network


def joined(average: bool) -> RoutedNetwork:
    torch.manual_seed(1)
    network = join([convert(small_view(seed, depth=8)) for seed in (3, 4, 5)], average=average)
    set_thresholds(network)
    return network


NETWORKS = {
    "narrow forms": lambda: parted(Cascade(width=(0.25, 0.5))),
    "exits": lambda: parted(Exit(at="layer1.0,layer2.0", head="linear", rule="entropy")),
    "a second look": lambda: looking(Cascade(width=0.4), depth=8),
    "joined": lambda: joined(average=False),
    "averaged": lambda: joined(average=True),
    "static": lambda: convert(small_view(depth=8)).eval(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_they_answer_as_the_network_does(name: str, tmp_path: Path, exporter: Exporter) -> None:
    network = NETWORKS[name]()
    files = save_passes(tmp_path, network, ABOUT, exporter)
    assert len(files) == len(network.stops) + 1
    runtime = load_runtime(tmp_path)
    same(runtime, network, counts=(1, 2, 7, 16))
    if network.stops:
        routes = runtime(images(16)).routes
        assert len(torch.unique(routes, dim=0)) == len(files)
    assert runtime.description.classes == ABOUT["classes"]
    same(load_runtime(files[0]), network, counts=(3,))
    kinds = {node.op_type for file in files for node in onnx.load(str(file)).graph.node}
    assert not kinds & {"If", "Loop", "NonZero", "ScatterND"}  # nothing but the network itself


def test_a_stem_runs_once(tmp_path: Path, exporter: Exporter) -> None:
    files = save_passes(tmp_path, parted(Cascade(width=0.4)), ABOUT, exporter)
    first, second = (onnx.load(str(file)).graph for file in files)
    assert [value.name for value in first.output] == ["logits", "next_shared"]
    assert [value.name for value in second.input] == ["shared"]


@pytest.mark.parametrize("junctions", [[Skip()], [Exit(at="layer2.0")]])
def test_what_decides_inside_of_a_pass_is_refused(junctions: list[Junction], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="lies inside of a pass: use the format onnx"):
        save_passes(tmp_path, convert(small_view(depth=8), junctions), ABOUT)


def test_files_that_are_not_whole(tmp_path: Path, exporter: Exporter) -> None:
    network = parted(Cascade(width=0.4))
    files = save_passes(tmp_path, network, ABOUT, exporter)
    files[1].unlink()
    with pytest.raises(InputError, match=r"lacks the pass after pass-0.onnx"):
        load_runtime(tmp_path)
    files[0].write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"pass-0.onnx is not as routekit wrote it"):
        load_runtime(tmp_path)
    with unverified(), pytest.raises(InputError, match="cannot be opened by onnxruntime"):
        load_runtime(tmp_path)


def test_in_int8_as_many_images_go_on(tmp_path: Path, exporter: Exporter) -> None:
    network = joined(average=True)
    files = save_passes(tmp_path, network, ABOUT, exporter)
    x = images(64)
    before = load_runtime(tmp_path)(x)
    quantize_passes(tmp_path, x)
    after = load_runtime(tmp_path)(x)
    for file in files:
        graph = onnx.load(str(file)).graph
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        makers = {output: node.op_type for node in graph.node for output in node.output}
        assert convolutions
        assert all(makers[node.input[1]] == "DequantizeLinear" for node in convolutions)
    assert torch.equal(after.routes.sum(dim=0), before.routes.sum(dim=0))
    assert 0 < int(before.routes[:, 0].sum()) < 64
    assert float((after.logits.argmax(dim=1) == before.logits.argmax(dim=1)).double().mean()) > 0.9
