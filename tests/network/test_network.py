import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.skip import Skip
from routekit.network.execution import masked, relaxed, sparse
from routekit.routing.decision import RUN, Decision, Layout
from routekit.routing.gate import gates, hard, soft
from routekit.routing.router import RouterConfig, banks
from tests.toy import ToyNet, open_to_images, toy_view


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", sorted(banks))
@pytest.mark.parametrize("execution", [relaxed, masked, sparse])
def test_a_converted_network_is_the_original_bit_for_bit(kind: str, execution) -> None:  # type: ignore[no-untyped-def]
    view = toy_view()
    network = convert(view, [Skip()], routers=RouterConfig(kind=kind)).eval()
    x = images(7)
    with torch.no_grad():
        trace = network(x, execution=execution)
        assert trace.routes.all()
        assert torch.equal(trace.logits, view.model(x))


def test_the_original_keeps_its_parameter_names() -> None:
    network = convert(toy_view())
    assert set(network.backbone.state_dict()) == set(ToyNet().state_dict())


def test_every_route_gives_what_the_blocks_give_by_hand() -> None:
    view = toy_view()
    network = convert(view, [Skip()]).eval()
    x = images(1)
    with torch.no_grad():
        for route in itertools.product([True, False], repeat=4):
            y = view.model.stem(x)
            for run, block in zip(route, view.model.body, strict=True):
                y = block(y) if run else (y if block.downsample is None else torch.relu(block.downsample(y)))
            got = network(x, routes=torch.tensor([route])).logits
            assert torch.equal(got, view.model.head(y))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000), count=st.integers(1, 17), bias=st.floats(-3, 3), kind=st.sampled_from(sorted(banks))
)
def test_masked_and_sparse_take_the_same_decisions_and_agree(seed: int, count: int, bias: float, kind: str) -> None:
    network = convert(toy_view(seed), [Skip()], routers=RouterConfig(kind=kind, hidden=8)).eval()
    open_to_images(network, seed)
    network.routers.bias.fill_(bias)
    x = images(count, seed)
    with torch.no_grad():
        one, other = network(x, execution=masked), network(x, execution=sparse)
    assert torch.equal(one.routes, other.routes)
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)


def test_one_image_alone_in_a_unit_is_normalised_as_at_inference() -> None:
    """In training, a batch norm has no statistics of one image whose features are one pixel."""
    network = convert(toy_view(), [Skip()]).train()
    unit, x = network.view.units[0], torch.randn(4, 4, 1, 1)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    before = copy.deepcopy(unit.block.state_dict())
    out = sparse(unit, x, Decision(logits=weights, weights=weights, choice=weights.argmax(dim=1)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in unit.block.state_dict().items())
    assert all(module.training for module in unit.block.modules())
    assert torch.equal(out[1:], x[1:])
    torch.testing.assert_close(out[:1], unit.block.eval()(x[:1]))


def test_sparse_computes_only_what_runs() -> None:
    network = convert(toy_view(), [Skip()]).eval()
    seen: list[int] = []
    for block in network.backbone.body:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    routes = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]], dtype=torch.bool)
    with torch.no_grad():
        network(images(3), routes=routes)
    assert seen == [3, 2, 1]  # nobody runs the second unit


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("index", [1, 2], ids=["identity", "down-sampling"])
def test_relaxed_execution_passes_the_gradient_check(index: int, memory_format: torch.memory_format) -> None:
    unit = convert(toy_view(), [Skip()]).junctions[index]
    unit.block.double().train(False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 4, 4, dtype=torch.float64, generator=generator).to(memory_format=memory_format)
    gate = torch.rand(3, dtype=torch.float64, generator=generator)

    def execute(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        weights = torch.stack([gate, 1 - gate], dim=1)
        return relaxed(unit, x, Decision(logits=weights, weights=weights, choice=weights.argmax(1))).square()

    assert torch.autograd.gradcheck(execute, (x.requires_grad_(), gate.requires_grad_()))


def test_relaxed_mixes_by_the_gate() -> None:
    view = toy_view()
    network = convert(view, [Skip()], routers=RouterConfig(open_logit=1.0)).eval()
    x = images(2)
    with torch.no_grad():
        trace = network(x, gate=soft, execution=relaxed, temperature=0.5)
        r = trace.gates[0]
        y = view.model.stem(x)
        for unit, gate in zip(network.junctions, r, strict=True):
            y = gate * unit.run(y) + (1 - gate) * unit.skip(y)
        torch.testing.assert_close(trace.logits, view.model.head(y), rtol=1e-5, atol=1e-5)
    assert ((r > 0.5) & (r < 1)).all()


def test_training_gives_routers_and_units_a_gradient() -> None:
    network = convert(toy_view(), [Skip()])
    open_to_images(network)
    network.train()
    trace = network(images(16), gate=gates["straight-through"], execution=relaxed)
    trace.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.routing_parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.computing_parameters())


@pytest.mark.parametrize("kind", sorted({*banks} - {"policy"}))  # which reads no features
@pytest.mark.parametrize("detach", [True, False])
def test_the_routers_gradient_reaches_the_features_unless_it_is_kept_out(kind: str, detach: bool) -> None:
    network = convert(toy_view(), [Skip()], routers=RouterConfig(kind=kind, detach=detach))
    open_to_images(network)
    features = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    network.routers(0, features, None)[0][:, 0].square().sum().backward()
    assert (features.grad is None) == detach


def test_a_trace_holds_gates_margins_and_routes() -> None:
    network = convert(toy_view(), [Skip()]).eval()
    open_to_images(network)
    with torch.no_grad():
        trace = network(images(9), gate=hard)
    assert trace.gates.shape == trace.routes.shape == trace.margins.shape == (9, 4)
    assert torch.equal(trace.routes, trace.margins >= 0)
    assert torch.equal(trace.routes[:, 2], trace.decisions[2].choice == RUN)


@pytest.mark.parametrize("execution", [relaxed, masked, sparse])
def test_without_junctions_it_is_the_dense_network_and_decides_nothing(execution) -> None:  # type: ignore[no-untyped-def]
    view, x = toy_view(), images(3)
    network = convert(view).eval()
    trace = network(x, execution=execution)
    assert torch.equal(trace.logits, view.model(x))
    assert trace.routes.shape == trace.margins.shape == trace.gates.shape == (3, 0)
    assert network.is_static
    assert network.columns == []
    assert network.layout == Layout()
    assert network.bias.shape == (0,)
    assert not network.routing_parameters()
    with pytest.raises(InputError, match="custom:toy has 0 banks of routers, not one"):
        _ = network.routers


def test_one_backbone_can_be_converted_twice() -> None:
    view = toy_view()
    convert(view, [Exit(at="body.1", head="linear")])
    again = convert(view, [Skip(), Exit(at="body.0", head="linear")])
    assert [unit.name for unit in again.junctions] == [unit.name for unit in view.units]
    assert not any(unit.decides for unit in view.units), "what was given is left as it was"


def test_a_deep_copy_is_independent_and_complete() -> None:
    network = convert(toy_view(), [Skip()]).eval()
    twin = copy.deepcopy(network)
    x = images(2)
    with torch.no_grad():
        before = network(x).logits
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(twin(x).logits, before)
        assert not torch.equal(network(x).logits, before)


def test_a_network_in_double_precision_runs() -> None:
    network = convert(toy_view(), [Skip()]).eval().double()
    assert torch.equal(network(images(3).double()).logits, network.backbone(images(3).double()).float())


def test_predict_is_eval_and_leaves_the_mode() -> None:
    network = convert(toy_view(), [Skip()]).train()
    x = images(2)
    got = network.predict(x)
    assert network.training
    with torch.no_grad():
        assert torch.equal(got, network.eval()(x).logits)


def test_a_bare_module_needs_a_spec_and_an_adapter() -> None:
    with pytest.raises(InputError, match="spec"):
        convert(ToyNet())


def test_a_network_without_skippable_units_is_refused() -> None:
    view = toy_view()
    for unit in view.units:
        unit.skippable = False
    with pytest.raises(InputError, match="no unit that can be skipped"):
        convert(view, [Skip()])


def test_non_skippable_units_always_run() -> None:
    view = toy_view()
    view.units[1].skippable = False
    network = convert(view, [Skip()]).eval()
    assert network.columns == ["body.0", "body.2", "body.3"]
    x, routes = images(2), torch.tensor([[False, True, True]] * 2)
    with torch.no_grad():
        y = view.model.stem(x)
        for block in view.model.body[1:]:
            y = block(y)
        assert torch.equal(network(x, routes=routes).logits, view.model.head(y))
