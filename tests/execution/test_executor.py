import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import routekit
from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import Backbone
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.execution import measured
from routekit.execution.executor import MaskedExecutor, Segment, SparseExecutor, segments
from routekit.execution.fuse import fuse
from routekit.execution.prepare import prepare
from routekit.execution.rows import put, take
from routekit.execution.timing import Timing
from routekit.formats.compact import compact
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.network.program import Units
from routekit.routing.router import RouterConfig, banks
from tests.agreement import Counter, executed_as_charged, executors_agree
from tests.toy import TOY_SPEC, open_to_images, toy_view
from tests.toy import toy_noise as images
from tests.toy import toy_routed as routed


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 17),
    bias=st.floats(-3, 3),
    kind=st.sampled_from(sorted(banks)),
    prepared=st.booleans(),
)
def test_masked_and_sparse_execution_decide_alike_and_agree(
    seed: int, count: int, bias: float, kind: str, prepared: bool
) -> None:
    executors_agree(routed(kind, seed, bias), images(count, seed), prepared=prepared)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), bias=st.floats(-3, 3), kind=st.sampled_from(["cnn", "fc"]))
def test_what_is_executed_is_what_the_cost_table_charges(seed: int, count: int, bias: float, kind: str) -> None:
    executed_as_charged(routed(kind, seed, bias), images(count, seed))


@pytest.mark.parametrize("name", ["resnet20", "timm:resnet26d", "timm:resnetv2_50", "torchvision:resnet18"])
def test_real_families_decide_alike_and_are_charged_what_they_execute(name: str) -> None:
    size = None if name == "resnet20" else (3, 64, 64)
    torch.manual_seed(0)
    network = convert(build(spec_of(name, num_classes=10, input_size=size)), [Skip()]).eval()
    open_to_images(network)
    x = torch.randn(5, *network.view.spec.input_size)
    with torch.no_grad():
        reference = network(x, execution=masked)
    form = prepare(network)
    with Counter() as counter:
        answer = SparseExecutor(form)(x)
    assert torch.equal(answer.routes, reference.routes)
    assert 0 < answer.routes.float().mean() < 1
    torch.testing.assert_close(answer.logits, reference.logits, rtol=1e-4, atol=1e-4)
    if name == "resnet20":  # the others have operators that fvcore does not count one by one: max pooling
        assert counter.flops == CostTable.measure(form).of_routes(answer.routes).sum()


def test_a_skipped_unit_and_an_unneeded_router_are_not_computed() -> None:
    network = routed()
    network.routers.bias.copy_(torch.tensor([-100.0, 100.0, -100.0, -100.0]))
    seen: list[str] = []
    for name, block in network.backbone.body.named_children():
        block.register_forward_pre_hook(lambda module, inputs, name=name: seen.append(name))
    SparseExecutor(network)(images(3))
    assert seen == ["1"]
    network = routed(bias=-100.0)
    asked: list[int] = []
    for index, router in enumerate(network.routers.routers):
        router[-1].register_forward_pre_hook(lambda module, inputs, index=index: asked.append(index))
    SparseExecutor(network)(images(3))
    assert asked == [0, 1, 2, 3]  # nobody runs a unit: once each
    asked.clear()
    network.routers.bias.fill_(100.0)
    SparseExecutor(network)(images(3))
    assert asked == [0, 1, 2, 1, 2, 2, 3]  # after each unit that ran, the rest of its group


def test_the_callers_images_stay_as_they_are() -> None:
    view = toy_view()
    model = nn.ModuleList([view.units[0].block])
    view = Backbone(model, replace(TOY_SPEC, input_size=(4, 8, 8)), nn.Identity(), view.units[:1], nn.Flatten())
    network = convert(view, [Skip()], routers=RouterConfig(hidden=8)).eval()
    open_to_images(network)
    x = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    network.routers.bias[0] = -network.routers.survey(range(1), x)[0].median()
    before = x.clone()
    answer = SparseExecutor(network)(x)
    assert 0 < int(answer.routes.sum()) < 7
    assert torch.equal(x, before)


def found_segments(network: RoutedNetwork) -> list[Segment]:
    return [segment for step in network.steps if isinstance(step, Units) for segment in segments(step)]


def test_segments_by_hand() -> None:
    view, skip = toy_view(), [Skip()]
    found = [(len(s.units), s.junctions) for s in found_segments(convert(view, skip))]
    assert found == [(3, range(3)), (1, range(3, 4))]
    view.units[1].skippable = False
    found = [(len(s.units), s.junctions) for s in found_segments(convert(view, skip))]
    assert found == [(1, range(1)), (1, range(0)), (1, range(1, 2)), (1, range(2, 3))]
    # A convolutional router is not asked ahead.
    convolutional = convert(toy_view(), skip, routers=RouterConfig(kind="cnn"))
    assert [s.junctions for s in found_segments(convolutional)] == [range(i, i + 1) for i in range(4)]


def test_compacted_networks_run_with_what_is_left() -> None:
    network = routed()
    small = compact(network, torch.tensor([[True, False, False, True], [False] * 4])).network
    assert [s.junctions for s in found_segments(small)] == [range(1), range(0), range(1, 2)]
    x = images(6)
    with torch.no_grad():
        reference = small(x, execution=masked)
    for form in (small, prepare(small), fuse(prepare(small))):
        assert [s.junctions for s in found_segments(form)] == [range(1), range(0), range(1, 2)]
        answer = SparseExecutor(form)(x)
        assert torch.equal(answer.routes, reference.routes)
        torch.testing.assert_close(answer.logits, reference.logits, rtol=1e-5, atol=1e-5)


def test_settled_units_run_unasked() -> None:
    """Routers see new features after a unit that always runs, and are asked then, once."""
    network, x = routed(), images(6)
    small = compact(network, torch.tensor([[True, True, False, True], [False, True, True, False]])).network
    assert [unit.name for unit in small.junctions] == ["body.0", "body.2", "body.3"]
    assert [(len(s.units), s.junctions) for s in found_segments(small)] == [
        (1, range(1)),
        (1, range(0)),
        (1, range(1, 2)),
        (1, range(2, 3)),
    ]
    with torch.no_grad():
        routes = network(x).routes
        routes[:, 1] = True
        want = network(x, routes=routes).logits
        got = small(x, routes=routes[:, [0, 2, 3]]).logits
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_dropped_unit_is_no_reason_to_ask_again_in_any_form() -> None:
    network = compact(routed(), torch.tensor([[True, False, True, True], [False] * 4])).network
    assert network.view.units[1].dropped
    want = [segment.junctions for segment in found_segments(network)]
    assert [segment.junctions for segment in found_segments(fuse(prepare(network)))] == want


def test_the_public_way_to_the_fast_form() -> None:
    network, x = routed(), images(5)
    answer = routekit.optimize(network)(x)
    with torch.no_grad():
        assert torch.equal(answer.routes, network(x).routes)
    torch.testing.assert_close(answer.logits, network.predict(x), rtol=1e-5, atol=1e-5)


def test_preparing_leaves_the_network_alone() -> None:
    network = routed().train()
    before = copy.deepcopy(network.state_dict())
    prepare(network)
    assert network.training
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_take_and_put_by_hand(memory_format: torch.memory_format) -> None:
    x = torch.arange(4 * 2 * 2 * 3.0).view(4, 2, 2, 3).contiguous(memory_format=memory_format)
    rows = np.array([3, 1])
    assert torch.equal(take(x, rows), x[[3, 1]])
    assert take(x, rows).is_contiguous(memory_format=memory_format)
    put(x, rows, -take(x, rows))
    assert (x[[1, 3]] <= 0).all()
    assert (x[[0, 2]] >= 0).all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), kind=st.sampled_from(sorted(banks)))
def test_computing_everything_gives_the_same_answers(seed: int, count: int, kind: str) -> None:
    network, x = prepare(routed(kind, seed)), images(count, seed)
    want = SparseExecutor(network)(x)
    assume(want.margins.abs().min() > 1e-4)
    got = MaskedExecutor(network)(x)
    assert torch.equal(got.routes, want.routes)
    torch.testing.assert_close(got.logits, want.logits, rtol=1e-5, atol=1e-5)


def test_the_faster_form_is_measured_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batch sizes, of which sparse execution wins the smaller; between them, the nearer in ratio decides."""
    times = {2: {"sparse": 1.0, "masked": 2.0}, 8: {"sparse": 3.0, "masked": 2.0}}

    def timed(contenders: Any, parts: list[torch.Tensor], **_: float) -> dict[str, Timing]:
        assert all(len(part) == len(parts[0]) for part in parts)
        return {name: Timing([[times[len(parts[0])][name]]]) for name in contenders}

    monkeypatch.setattr(measured, "in_turns", timed)
    executor = measured.MeasuredExecutor(prepare(routed()), images(9), batches=(2, 8))
    assert [str(choice)[:32] for choice in executor.choices] == [
        "batch 2: sparse, 1.00 ms (comput",
        "batch 8: everything is computed,",
    ]
    used: list[str] = []
    for name in ("sparse", "masked"):
        getattr(executor, name).register_forward_pre_hook(lambda module, inputs, name=name: used.append(name))
    for count in (1, 3, 5, 9):
        executor(images(count))
    assert used == ["sparse", "sparse", "masked", "masked"]
    with pytest.raises(InputError, match="takes images"):
        routekit.optimize(routed(), images(0))


def test_measuring_for_real_changes_no_answer() -> None:
    network, x = routed(), images(9)
    executor = routekit.optimize(network, x)
    assert [choice.batch for choice in executor.choices] == [1, 8, 9]
    assert torch.equal(executor(x).routes, routekit.optimize(network)(x).routes)
