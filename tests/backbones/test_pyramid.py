"""The multiscale networks: how scales are packed, what a column computes, what it costs by hand."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from routekit.backbones.load import build, load_backbone, spec_of
from routekit.backbones.pyramid import COLUMNS, Column, pack, pyramid_names, unpack
from routekit.cost.price import price_for
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.execution.executor import SparseExecutor
from routekit.execution.prepare import prepare
from routekit.formats.checkpoint import TENSORS, load, save_network
from routekit.junctions.branch import Branch
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.macs import count
from routekit.network.deciders import LearnedDecider
from routekit.network.execution import masked
from routekit.network.program import Classify
from routekit.pipeline.measure import cost_table
from routekit.routing.router import RouterConfig
from tests.agreement import executed_as_charged
from tests.toy import open_to_images


@given(st.integers(1, 4), st.integers(0, 2))
def test_packing_loses_nothing(count: int, extra: int) -> None:
    size = 2 ** (count + extra)
    scales = [torch.rand(2, 3, size >> index, size >> index) for index in range(count)]
    packed = pack(scales)
    assert packed.shape == (2, 3, size, size if count == 1 else size * 3 // 2)
    assert all(torch.equal(a, b) for a, b in zip(unpack(packed, count), scales, strict=True))
    assert packed.sum() == pytest.approx(sum(float(each.sum()) for each in scales), rel=1e-4)


def normalized(x: Tensor) -> Tensor:
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), correction=0, keepdim=True)
    return F.relu((x - mean) / (var + 1e-6).sqrt())


def test_a_column_goes_from_its_finest_scale_to_its_coarsest() -> None:
    """Each scale reads the same scale of the column before, and the finer one of this column before its batch norm."""
    torch.manual_seed(0)
    column = Column(2, 3, scales=3, given=2)
    scales = [torch.randn(4, 2, size, size) for size in (8, 4, 2)]
    weights = [conv.weight for conv in (*column.same, *column.finer)]
    assert [tuple(weight.shape) for weight in weights] == [(3, 2, 3, 3)] * 3 + [(3, 3, 3, 3)] * 2
    fine = F.conv2d(scales[0], weights[0], padding=1)
    middle = F.conv2d(scales[1], weights[1], padding=1) + F.conv2d(F.max_pool2d(fine, 2), weights[3], padding=1)
    coarse = F.conv2d(scales[2], weights[2], padding=1) + F.conv2d(F.max_pool2d(middle, 2), weights[4], padding=1)
    # The finest scale is computed for the coarser ones of this column alone: the next one does not read it.
    for got, want in zip(unpack(column(pack(scales)), 2), (middle, coarse), strict=True):
        torch.testing.assert_close(got, normalized(want), rtol=1e-4, atol=1e-4)


def test_what_the_whole_network_costs() -> None:
    """By the formulas of the authors' code; and nothing is computed that is not counted."""
    net = build(spec_of("pyramid8")).model
    channels, norms, convolutions, pixels = 3, 0, [], [32 * 32, 16 * 16, 8 * 8, 4 * 4]
    for (made, scales), (_, read) in zip(COLUMNS, [*COLUMNS[1:], (0, 1)], strict=True):
        convolutions.append(9 * made * (channels * sum(pixels[-scales:]) + made * sum(pixels[-scales:][1:])))
        norms += 2 * made * sum(pixels[-read:])
        channels = made
    assert sum(convolutions) == 20_530_944
    assert sum(convolutions[:2]) / sum(convolutions) == pytest.approx(0.257, abs=5e-4)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as eager:  # which counts two for a multiply-add, and no batch norms
        logits = net.train()(x)
    assert eager.get_total_flops() == 2 * len(x) * (sum(convolutions) + 2048 * 10)
    assert count(net, (x[:1],), net).flops == sum(convolutions) + 2048 * 10 + norms
    logits.square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if not bool((parameter.grad != 0).any())] == []


def test_a_former_pyramid_is_refused(tmp_path: Path) -> None:
    """Its columns had one convolution for all scales."""
    save_network(tmp_path, convert(build(spec_of("pyramid2", num_classes=4))), about={})
    tensors = load_file(tmp_path / TENSORS)
    former = {re.sub(r"(same|finer|norm)\.\d", r"\1", name): tensor for name, tensor in tensors.items()}
    assert "columns.1.same.weight" in " ".join(former)
    save_file(former, tmp_path / TENSORS)
    with pytest.raises(InputError, match="weights of a former pyramid, whose columns were not those of the paper"):
        load(tmp_path, verify=False)


def test_the_names_are_the_columns_and_the_widths() -> None:
    assert pyramid_names()[:4] == ("pyramid8", "pyramid8x2", "pyramid8x3", "pyramid7")
    assert len(pyramid_names()) == 24
    assert len(build(spec_of("pyramid3")).units) == 3
    wide = build(spec_of("pyramid8x3")).model
    assert [[norm.num_features for norm in column.norm] for column in wide.columns] == [
        [3 * channels] * scales for (channels, _), (_, scales) in zip(COLUMNS, [*COLUMNS[1:], (0, 1)], strict=True)
    ]


def test_what_columns_cost_by_hand() -> None:
    costs = CostTable.measure(convert(load_backbone("pyramid2", weights="none")))
    pixels = [32 * 32, 16 * 16, 8 * 8, 4 * 4]
    # Each scale is convolved from the same one, and all but the finest from the finer one as well; batch norm at 2.
    first = 9 * 3 * 16 * sum(pixels) + 9 * 16 * 16 * sum(pixels[1:]) + 2 * 16 * sum(pixels)
    second = 9 * 16 * 16 * (sum(pixels) + sum(pixels[1:])) + 2 * 16 * pixels[-1]  # of what is classified
    assert [part.cost for part in costs.parts if part.kind == "unit"] == [first, second]
    assert next(part.cost for part in costs.parts if part.kind == "head") == 16 * 16 * 10
    assert cost_table("pyramid2").parts == costs.parts, "the command counts them, though none can be skipped"


def test_with_copies_of_columns_junctions_have_more_sinks() -> None:
    torch.manual_seed(0)
    view = build(spec_of("pyramid4", num_classes=4))
    x = torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    x += torch.linspace(-3, 3, 9).view(9, 1, 1, 1)  # routers look at averages
    with torch.no_grad():
        want = view.model.eval()(x)
        junctions = [Branch(width=(), candidates=1), Exit(at="all", head="linear")]
        network = convert(view, junctions, routers=RouterConfig(hidden=8)).eval()
        assert torch.equal(network(x).logits, want)
        costs = CostTable.measure(network)
        units, stops = costs.layout.of_units, list(costs.layout.stops)
        assert (units, stops) == ([0, 2, 4, 6], [1, 3, 5])
        # Whichever copy it is, it costs the same, and has no price.
        assert costs.extra[units].tolist() == [0.0] * 4
        assert costs.cost_share[units].tolist() == [0.0] * 4
        assert bool((costs.cost_share[stops] > 0).all())
        assert price_for(torch.zeros(2, 7), costs, costs.minimum, cost_share=torch.zeros(7)) == 0.0
        for unit in network.view.units:
            for conv in unit.branches[0].same:
                conv.weight.normal_(std=0.1)
        open_to_images(network)
        network.routers.bias.fill_(0.0)
        trace = network(x, execution=masked)
        answer = SparseExecutor(prepare(network))(x)
    assert len(trace.routes[:, units].unique(dim=0)) > 1
    assert torch.equal(answer.routes, trace.routes)
    torch.testing.assert_close(answer.logits, trace.logits, rtol=1e-4, atol=1e-4)


def test_with_exits_it_stops_where_it_should() -> None:
    torch.manual_seed(0)
    view = build(spec_of("pyramid8", num_classes=4))
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = view.model.eval()(x)
        network = convert(view, [Exit(at="all", head="linear", features=1.0)]).eval()
        assert torch.equal(network(x).logits, want)
        # The paper's classifier: 16 times the channels, of the coarsest scale.
        heads = [step.head for step in network.steps if isinstance(step, Classify)]
        assert [head.classifier.in_features for head in heads] == [16 * c for c, _ in COLUMNS[:-1]]
        for index, decider in enumerate(network.deciders):
            assert isinstance(decider, LearnedDecider)
            last = decider.router[-1]
            last.weight.normal_(generator=torch.Generator().manual_seed(index))
            last.bias.copy_(torch.tensor([-0.4, 0.0]))  # some images stop at the first exit, and others at the second
        trace = network(x, execution=masked)
        answer = SparseExecutor(prepare(network))(x)
    executed_as_charged(network, x)
    assert len(trace.routes.unique(dim=0)) > 1
    assert torch.equal(answer.routes, trace.routes)
    torch.testing.assert_close(answer.logits, trace.logits, rtol=1e-4, atol=1e-4)


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(InputError, match="multiple of 8"):
        build(spec_of("pyramid8", input_size=(3, 28, 28)))
