"""Networks that look again: where an answer is not certain enough, the mirrored image is asked about as well."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.cost.model import CostModel
from routekit.export.checkpoint import load_network, save_network
from routekit.export.compact import compact
from routekit.export.onnx.file import save_onnx
from routekit.export.onnx.piece import Exporter
from routekit.export.openvino import save_openvino
from routekit.network.convert import convert
from routekit.network.executor import masked
from routekit.network.exits import CascadeConfig, ExitConfig
from routekit.network.network import RoutedNetwork
from routekit.runtime.load import load_runtime
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.runtime.parity import ABOUT, images, same
from tests.toy import open_to_images, small_view

AGAIN = ExitConfig(at="end", head="own", rule="confidence")


def looking(*, skips: bool = False, keep: tuple[float, ...] = (0.4,)) -> RoutedNetwork:
    """A small network behind narrow forms of itself, which looks again; some images are answered at each place."""
    torch.manual_seed(0)
    exits = [*CascadeConfig(keep=keep).exits(0.5), AGAIN] if keep else [AGAIN]
    view = small_view()
    view.model.linear.weight.data.mul_(0.2)  # so that it is not nearly certain of all
    network = convert(view, exits=exits, skips=skips).eval()
    if skips:
        open_to_images(network)
    with torch.no_grad():
        left = torch.ones(16, dtype=torch.bool)
        for each, leaf in zip(network.exits, network(images(16), execution=masked).leaves, strict=False):
            sure = leaf.softmax(dim=1).amax(dim=1)
            ranked = sure.sort().values
            # Some of those who get here go on; of the thresholds that do so, one at which no rounding decides.
            gaps = [
                (float(high - low), float(high + low) / 2)
                for low, high in itertools.pairwise(ranked)
                if left.sum() / 2 <= int((sure[left] < high).sum()) < int(left.sum())
            ]
            each.offset.fill_(max(gaps)[1])
            left &= sure <= each.offset
    return network


@torch.no_grad()
def test_what_is_looked_at_again_is_answered_by_both_looks() -> None:
    network, x = looking(), images(16)
    trace = network(x)
    model, narrow = network.backbone, network(x, execution=masked).leaves[0]
    again = (model(x) + model(x.flip(-1))) / 2
    past, once_more = trace.routes.T
    assert min(part.sum() for part in who(trace.routes)) > 0
    want = torch.where(once_more.unsqueeze(1), again, torch.where(past.unsqueeze(1), model(x), narrow))
    torch.testing.assert_close(trace.logits, want, rtol=1e-4, atol=1e-5)


def who(routes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are answered by the narrow form, by the network, and by both of its looks."""
    past, again = routes.T
    return ~past, past & ~again, past & again


@pytest.mark.parametrize(("skips", "keep"), [(False, (0.4,)), (True, (0.25, 0.5)), (False, ())])
def test_however_it_is_executed(skips: bool, keep: tuple[float, ...], tmp_path: Path) -> None:
    network, x = looking(skips=skips, keep=keep), images(16)
    assert network.columns[-1] == "past end"
    assert network.answerers == [*["stem", "stem.1"][: len(keep)], "end", "again"]
    executed_as_charged(network, x)
    executors_agree(network, x, prepared=True)
    served_alike(network, x)
    save_network(tmp_path / "whole", network, about={})
    with torch.no_grad():
        small = compact(copy.deepcopy(network), network(x).routes).network
        save_network(tmp_path / "compact", small, about={})
        for again in (load_network(tmp_path / "whole"), small, load_network(tmp_path / "compact")):
            torch.testing.assert_close(again(x).logits, network(x).logits, rtol=1e-4, atol=1e-4)
            assert torch.equal(again(x).routes[:, -1], network(x).routes[:, -1])


def test_a_second_look_costs_the_whole_network() -> None:
    costs = CostModel.measure(looking())
    head = next(part.flops for part in costs.parts if part.kind == "head")
    first, end, again = costs.of_routes(torch.tensor([[False, False], [True, False], [True, True]])).tolist()
    stem = next(part.flops for part in costs.parts if part.kind == "stem")
    assert end == first + costs.dense - stem
    assert again == end + costs.dense + head
    assert costs.maximum == again
    assert looking().units_run(torch.tensor([[False, False], [True, False], [True, True]])).tolist() == [0, 6, 12]


@pytest.mark.parametrize("keep", [(0.4,), ()])
def test_in_every_file(keep: tuple[float, ...], tmp_path: Path, exporter: Exporter) -> None:
    network = looking(keep=keep)
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
    if keep:
        save_openvino(tmp_path / "openvino", [tmp_path / "False" / "single.onnx", tmp_path / "False" / "batch.onnx"])
        same(load_runtime(tmp_path / "openvino"), network)


@pytest.mark.parametrize(
    ("at", "head", "rule"), [("end", "linear", "entropy"), ("auto", "own", "entropy"), ("end", "own", "learned")]
)
def test_only_the_end_is_answered_by_the_head(at: str, head: str, rule: str) -> None:
    with pytest.raises(ValueError, match="by the network's own head"):
        ExitConfig(at=at, head=head, rule=rule)
