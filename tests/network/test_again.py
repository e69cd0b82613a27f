"""Networks that look again: where an answer is not certain enough, the mirrored image is asked about as well."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.formats.checkpoint import load, save_network
from routekit.formats.compact import compact
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.formats.openvino import save_openvino
from routekit.junctions.again import Again, look_again, look_once
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.runtime.load import load_runtime
from tests.agreement import executed_as_charged, executors_agree, served_alike
from tests.runtime.parity import ABOUT, images, same
from tests.toy import small_view

NARROW, TWO_NARROW = Cascade(width=0.4), Cascade(width=(0.25, 0.5))
EXIT = Exit(at="layer2.0", head="linear", rule="entropy")


def looking(*junctions: Junction, depth: int = 14) -> RoutedNetwork:
    """A small network that looks again; some images are answered at each of its stops."""
    torch.manual_seed(0)
    view = small_view(depth=depth)
    view.model.linear.weight.data.mul_(0.2)  # so that it is not nearly certain of all
    network = convert(view, [*junctions, Again()]).eval()
    set_thresholds(network)
    return network


@torch.no_grad()
def set_thresholds(network: RoutedNetwork) -> None:
    left = torch.ones(16, dtype=torch.bool)
    for decider, leaf in zip(network.deciders, network(images(16), execution=masked).leaves, strict=False):
        sure = decider.certainty(leaf.softmax(dim=1))
        ranked = sure.sort().values
        # Some of those who get here go on; of the thresholds that do so, one at which no rounding decides.
        gaps = [
            (float(high - low), float(high + low) / 2)
            for low, high in itertools.pairwise(ranked)
            if left.sum() / 2 <= int((sure[left] < high).sum()) < int(left.sum())
        ]
        decider.bias.fill_(max(gaps)[1])
        left &= sure <= decider.bias


@torch.no_grad()
def test_what_is_looked_at_again_is_answered_by_both_looks() -> None:
    network, x = looking(NARROW), images(16)
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


@pytest.mark.parametrize(
    ("junctions", "stops"),
    [
        ([NARROW], ["narrow"]),
        ([TWO_NARROW], ["narrow", "narrow.1"]),
        ([EXIT], ["layer2.0"]),
        ([EXIT, NARROW], ["narrow", "layer2.0"]),
    ],
    ids=["cascade", "two forms", "exit", "cascade and exit"],
)
def test_however_it_is_executed(junctions: list[Junction], stops: list[str], tmp_path: Path) -> None:
    network, x = looking(*junctions), images(16)
    assert network.columns == [*(f"past {stop}" for stop in stops), "past end"]
    assert network.answerers == [*stops, "end", "again"]
    executed_as_charged(network, x)
    executors_agree(network, x, prepared=True)
    served_alike(network, x)
    save_network(tmp_path / "whole", network, about={})
    with torch.no_grad():
        small = compact(copy.deepcopy(network), network(x).routes).network
        save_network(tmp_path / "compact", small, about={})
        for again in (load(tmp_path / "whole"), small, load(tmp_path / "compact")):
            assert again.looks_again
            torch.testing.assert_close(again(x).logits, network(x).logits, rtol=1e-4, atol=1e-4)
            assert torch.equal(again(x).routes[:, -1], network(x).routes[:, -1])


def test_a_second_look_costs_the_whole_network() -> None:
    network = looking(NARROW)
    costs, routes = CostTable.measure(network), torch.tensor([[False, False], [True, False], [True, True]])
    first, end, again = costs.of_routes(routes).tolist()
    stem = next(part.cost for part in costs.parts if part.kind == "stem")
    assert end == first + costs.dense - stem
    assert again == end + costs.dense
    assert costs.maximum == again
    assert network.units_run(routes).tolist() == [6, 12, 18]
    assert network.units == 18


@pytest.mark.parametrize("junction", [NARROW, EXIT], ids=["cascade", "exit"])
def test_in_every_file(junction: Junction, tmp_path: Path, exporter: Exporter) -> None:
    network = looking(junction, depth=8)
    for native in (False, True):
        for file in save_onnx(tmp_path / str(native), network, ABOUT, exporter, native=native):
            same(load_runtime(file), network)
    if junction is NARROW:
        save_openvino(tmp_path / "openvino", [tmp_path / "False" / "single.onnx", tmp_path / "False" / "batch.onnx"])
        same(load_runtime(tmp_path / "openvino"), network)


@torch.no_grad()
def test_a_network_can_be_made_to_look_again_and_once_more_only_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    once, x = convert(small_view(), [EXIT, NARROW]).eval(), images(9)
    before = once(x, execution=masked)
    made = look_again(once)
    assert not once.looks_again, "what was given is left as it was"
    assert (made.columns[:-1], made.columns[-1]) == (once.columns, "past end")
    assert made.deciders[-1].config.rule == "confidence", "as the first stop decides"
    after = made(x, execution=masked)
    for leaf, same_leaf in zip(after.leaves, before.leaves, strict=False):
        assert torch.equal(leaf, same_leaf)
    # At first all images are looked at twice.
    torch.testing.assert_close(after.logits, (before.logits + once(x.flip(-1)).logits) / 2)
    save_network(tmp_path, made, about={})
    assert torch.equal(load(tmp_path)(x).logits, made(x).logits)
    again = look_once(made)
    assert (again.columns, again.looks_again) == (once.columns, False)
    assert [junction.kind for junction in again.blueprint.sources[0].junctions] == ["exit", "cascade"]
    assert torch.equal(again(x).logits, once(x).logits)
    assert look_once(once) is once


def test_a_second_look_is_for_what_is_decided_by_certainty() -> None:
    learned = Exit(at="layer2.0", head="linear")
    for junctions in ([], [Skip()], [Skip(), NARROW], [learned], [learned, NARROW]):
        with pytest.raises(InputError, match="joins what is decided by certainty"):
            convert(small_view(), [*junctions, Again()])
        with pytest.raises(InputError, match="joins what is decided by certainty"):
            look_again(convert(small_view(), junctions))
