"""Exported files in their runtimes: the same decisions and logits as the network, for any batch."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image

from routekit.baselines.depth import static_depth
from routekit.cost.table import CostTable
from routekit.errors import ExportError, InputError
from routekit.execution.executor import Answer
from routekit.execution.prepare import prepare
from routekit.formats.checkpoint import save_network
from routekit.formats.description import FORMAT, LAYOUT, Description
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.formats.openvino import save_openvino
from routekit.formats.program import save_program
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.manifest import unverified
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig
from routekit.runtime import runtime as runtimes
from routekit.runtime.load import load_runtime
from routekit.runtime.runtime import Runtime, TorchRuntime
from routekit.runtime.verify import verify
from tests.runtime.parity import ABOUT, as_of_a_library, images, routed, same
from tests.toy import open_to_images, small_view, toy_view

# The second and third unit are decided on features that the first may have changed; the third down-samples.
BIASES = {"mixed": 0.0, "nothing": -100.0, "everything": 100.0}


@pytest.fixture(scope="module", params=BIASES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, exporter: Exporter
) -> tuple[RoutedNetwork, Path]:
    network, folder = routed(BIASES[request.param]), tmp_path_factory.mktemp(request.param)
    save_onnx(folder, network, ABOUT, exporter)
    return network, folder


def test_onnx_decides_as_the_network_does(exported: tuple[RoutedNetwork, Path]) -> None:
    network, folder = exported
    same(load_runtime(folder), network)
    same(load_runtime(folder / "single.onnx"), network)
    same(load_runtime(folder / "batch.onnx"), network)


def test_units_are_computed_only_for_whom_they_run(exported: tuple[RoutedNetwork, Path]) -> None:
    _, folder = exported
    for file in folder.glob("*.onnx"):
        graph = onnx.load(file).graph
        assert [node.op_type for node in graph.node].count("Conv") == 1  # the stem
        branches = [node for node in graph.node if node.op_type == "If"]
        assert len(branches) == (5 if file.stem == "batch" else 4)  # in a batch, a shortcut has a branch of its own
        inside = [[node.op_type for node in attribute.g.node] for node in branches for attribute in node.attribute]
        assert sum(operators.count("Conv") for operators in inside) >= 5


@pytest.mark.parametrize("channels", [4, 16])  # four fill no block
@pytest.mark.parametrize("bias", BIASES.values())
def test_native_files_decide_as_the_network_does(
    tmp_path: Path, bias: float, channels: int, exporter: Exporter
) -> None:
    network = routed(bias, channels=channels)
    files = save_onnx(tmp_path, network, ABOUT, exporter, native=True)
    same(load_runtime(tmp_path), network)
    for file in files:
        same(load_runtime(file), network)
        nodes = list(onnx.load(file).graph.node)
        branches = [attribute.g.node for node in nodes if node.op_type == "If" for attribute in node.attribute]
        for node in [*nodes, *(node for branch in branches for node in branch)]:
            assert node.op_type != "Conv" or node.domain == "com.microsoft.nchwc"


def test_a_native_file_of_another_machine_is_refused(tmp_path: Path, exporter: Exporter) -> None:
    files = save_onnx(tmp_path, routed(), ABOUT, exporter, native=True)
    model = onnx.load(files[0])
    for each in model.metadata_props:
        if each.key == LAYOUT:
            each.value = "onnxruntime 0.1, 0123456789ab"
    onnx.save(model, files[0])
    with unverified(), pytest.raises(InputError, match=r"another CPU family or onnxruntime .*or not native"):
        load_runtime(tmp_path)


def test_an_onnx_file_says_what_it_is(exported: tuple[RoutedNetwork, Path]) -> None:
    network, folder = exported
    model = onnx.load(folder / "batch.onnx")
    assert model.producer_name == "routekit"
    assert model.producer_version
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    properties = {each.key: each.value for each in model.metadata_props}
    described, form = Description.from_json(properties[FORMAT], folder)
    assert form == "batch"
    assert described.classes == ["red", "green", "blue"]
    assert described.columns == ["body.0", "body.1", "body.2", "body.3"]
    assert described.spec == network.spec
    routes = torch.tensor([[True, False, True, False], [False, True, False, True]])
    # The file's cost table is that of what it holds: batch norms are folded.
    assert torch.equal(described.costs.of_routes(routes), CostTable.measure(prepare(network)).of_routes(routes))
    assert json.loads(properties[FORMAT])["preprocessing"]["mean"] == list(network.view.spec.mean)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_network_that_decides_nothing_has_no_branch_in_its_files(
    tmp_path: Path, share: float, native: bool, exporter: Exporter
) -> None:
    view = toy_view()
    if share < 1:
        view = static_depth("distributedk", view, share * CostTable.measure(convert(view)).dense, 0)
    network = convert(view).eval()
    for file in save_onnx(tmp_path, network, {}, exporter, native=native):
        assert not any(node.op_type == "If" for node in onnx.load(file).graph.node)
        same(load_runtime(file), network)
    assert load_runtime(tmp_path)(images(2)).routes.shape == (2, 0)


def test_onnx_holds_convolutional_routers(tmp_path: Path, exporter: Exporter) -> None:
    view = toy_view()
    view.units[0].skippable = view.units[1].skippable = False
    network = convert(view, [Skip()], routers=RouterConfig(kind="cnn")).eval()
    open_to_images(as_of_a_library(network))
    for native in (False, True):
        save_onnx(tmp_path, network, {}, exporter, native=native)
        same(load_runtime(tmp_path), network)


def test_what_onnx_cannot_hold_is_named(tmp_path: Path, exporter: Exporter) -> None:
    with pytest.raises(ExportError, match=r"router of body\.0 .* carries a state"):
        save_onnx(tmp_path, routed(kind="rnn"), {}, exporter)
    network = routed()
    network.view.units[1].block.forward = lambda x: x if float(x.sum()) > 0 else -x  # type: ignore[method-assign]
    with pytest.raises(ExportError, match=r"body\.1 cannot be exported to ONNX: .+"):
        save_onnx(tmp_path, network, {})


def test_an_exported_file_names_no_source_code(tmp_path: Path, exporter: Exporter) -> None:
    (file,) = save_onnx(tmp_path, routed(), ABOUT, exporter, forms=["single"])
    content = file.read_bytes()
    assert b"stack_trace" not in content
    assert b".py" not in content
    assert str(Path.cwd()).encode() not in content


def test_openvino_decides_as_the_network_does(tmp_path: Path, exporter: Exporter) -> None:
    network = routed()
    files = save_openvino(tmp_path, save_onnx(tmp_path, network, ABOUT, exporter))
    assert {file.name for file in files} == {"single.xml", "batch.xml"}
    runtime = load_runtime(tmp_path)
    same(runtime, network)
    assert runtime.description.classes == ["red", "green", "blue"]


def test_a_torch_program_decides_as_the_network_does(tmp_path: Path) -> None:
    network = routed()
    save_program(tmp_path, network, ABOUT)
    same(load_runtime(tmp_path / "masked.pt2", trust=True), network)
    dense = torch.export.load(tmp_path / "dense.pt2").module()
    torch.testing.assert_close(dense(images(3)), network.backbone(images(3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="does not route"):
        load_runtime(tmp_path / "dense.pt2", trust=True)


def test_no_code_of_a_file_is_run_unless_it_is_named_and_trusted(tmp_path: Path, exporter: Exporter) -> None:
    """A pickle that touches a file when it is opened, as a program of torch, beside what routekit wrote."""
    harm = tmp_path / "harm"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (harm,))

    network = convert(small_view(depth=8), [Skip()])
    save_network(tmp_path / "compact", network, about=ABOUT)
    save_onnx(tmp_path / "onnx", network, ABOUT, exporter)
    (tmp_path / "alone").mkdir()
    for folder in ("compact", "onnx", "alone"):
        torch.save(Bomb(), tmp_path / folder / "masked.pt2")
    for folder in ("compact", "onnx"):
        same(load_runtime(tmp_path / folder), network)
    with pytest.raises(InputError, match=r"holds nothing that routekit wrote \(routekit.json is missing\)"):
        load_runtime(tmp_path / "alone")
    with unverified(), pytest.raises(InputError, match="to open one is to run code"):
        load_runtime(tmp_path / "alone")
    with pytest.raises(InputError, match=r"to open one is to run code that may lie in it.*trust=True"):
        load_runtime(tmp_path / "alone" / "masked.pt2")
    assert not harm.exists()


def save_images(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    paths = []
    for index in range(count):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=generator)
        paths.append(str(folder / f"{index}.png"))
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


class Changed:
    """A runtime whose answer to one image of the whole sequence is changed."""

    def __init__(self, original: Runtime, what: str, at: int) -> None:
        self.original, self.what, self.at, self.seen = original, what, at, 0
        self.description = original.description

    def __call__(self, x: torch.Tensor) -> Answer:
        answer = self.original(x)
        answer = Answer(answer.logits.clone(), answer.margins.clone())
        row, self.seen = self.at - self.seen, self.seen + len(x)
        if 0 <= row < len(x):
            if self.what == "route":
                answer.margins[row, 2] *= -1
            else:
                answer.logits[row, 0] += {"class": 100.0, "logits": 1e-3, "nothing": 1e-6}[self.what]
        return answer


@pytest.mark.parametrize("what", ["route", "class", "logits", "nothing"])
def test_verifying_names_the_first_image_that_differs(tmp_path: Path, what: str) -> None:
    paths = save_images(tmp_path / "images", 10)
    runtime = TorchRuntime(routed(), ABOUT)
    changed = Changed(runtime, what, at=6)
    if what == "nothing":
        assert verify(changed, runtime, paths, batch_size=4).images == 10
        return
    says = {"route": "takes another route", "class": "gets another class", "logits": "gets other logits"}[what]
    with pytest.raises(ExportError, match=rf"6\.png {says} .* after 6 equal images"):
        verify(changed, runtime, paths, batch_size=4)


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match="cannot be opened by onnxruntime"):
        load_runtime(tmp_path / "broken.onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    opset = [onnx.helper.make_opsetid("", 20)]
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [value], [out]), ir_version=9, opset_imports=opset
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="was not written by `routekit export`"):
        load_runtime(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(foreign, {FORMAT: json.dumps({"version": 99})})
    onnx.save(foreign, tmp_path / "newer.onnx")
    with pytest.raises(InputError, match="version 99"):
        load_runtime(tmp_path / "newer.onnx")
    (tmp_path / "broken.pt2").write_bytes(b"no program")
    with pytest.raises(InputError, match="cannot be opened by torch"):
        load_runtime(tmp_path / "broken.pt2", trust=True)
    (tmp_path / "broken.xml").write_text("<no/>")
    with pytest.raises(InputError, match="cannot be opened by OpenVINO"):
        load_runtime(tmp_path / "broken.xml")
    with pytest.raises(InputError, match="does not exist"):
        load_runtime(tmp_path / "nowhere")
    (tmp_path / "note.txt").write_text("")
    with pytest.raises(InputError, match="neither a run"):
        load_runtime(tmp_path / "note.txt")


def test_a_runtime_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r"pip install 'routekit\[onnx\]'"):
        runtimes.need("a_module_that_nobody_has", "onnx")
