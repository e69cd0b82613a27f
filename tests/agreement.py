"""What has to hold for networks with any kind of junction, however they are executed."""

from typing import Any

import torch
from hypothesis import reject
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import routekit
from routekit.cost.table import CostTable
from routekit.execution.executor import MaskedExecutor, SparseExecutor
from routekit.execution.prepare import prepare
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork

SAFE = 1e-4  # a margin nearer to 0 may fall either way when operators are fused


class Counter(TorchDispatchMode):
    """Multiply-adds of what is really executed, from the shapes of every operator, in fvcore's convention."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "conv2d":
            self.flops += out.numel() * args[1][0].numel()
        elif name in ("linear", "bmm"):
            self.flops += out.numel() * args[0].shape[-1]
        elif name == "batch_norm":
            self.flops += args[0].numel() * (1 if args[1] is None else 2)
        elif name == "adaptive_avg_pool2d":
            self.flops += args[0].numel()
        return out


def executed_as_charged(network: RoutedNetwork, x: Tensor) -> None:
    """The sparse executor computes just what the cost table charges for the routes that are taken."""
    with Counter() as counter:
        answer = SparseExecutor(network)(x)
    assert counter.flops == CostTable.measure(network).of_routes(answer.routes).sum()


def executors_agree(network: RoutedNetwork, x: Tensor, *, prepared: bool) -> None:
    """Whether all or only what is needed is computed, decisions and answers are the same."""
    with torch.no_grad():
        reference, plain = network(x, execution=masked), network(x)
    if reference.margins.abs().min() <= SAFE:
        reject()
    assert torch.equal(plain.routes, reference.routes)
    torch.testing.assert_close(plain.logits, reference.logits, rtol=1e-4, atol=1e-5)
    for executor in (SparseExecutor, MaskedExecutor):
        answer = executor(prepare(network) if prepared else network)(x)
        assert torch.equal(answer.routes, reference.routes)
        torch.testing.assert_close(answer.logits, reference.logits, rtol=1e-4, atol=1e-5)
        # Behind a stop that was taken, and of sinks that lost, there is no margin to compare.
        asked = answer.margins.isfinite() & reference.margins.isfinite()
        torch.testing.assert_close(answer.margins[asked], reference.margins[asked], rtol=1e-4, atol=1e-4)


def served_alike(network: RoutedNetwork, x: Tensor) -> None:
    """The fast form gives the network's own routes and answers, whatever the batches are."""
    with torch.no_grad():
        want = network(x)
    assert len({tuple(route) for route in want.routes.tolist()}) > 1
    fast = routekit.optimize(network)
    assert torch.equal(fast(x).routes, want.routes)
    answers = [fast(part) for part in torch.split(x, 3)]
    assert torch.equal(torch.cat([each.routes for each in answers]), want.routes)
    torch.testing.assert_close(torch.cat([each.logits for each in answers]), want.logits, rtol=1e-4, atol=1e-4)
