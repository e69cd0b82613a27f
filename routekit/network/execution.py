"""Three executions of a unit for a batch whose images decided differently.

They take the same decisions and differ in what they compute:
  relaxed  all sinks, mixed by the gate: training, where the router needs the gradient of each (Eq. 4)
  masked   all sinks, one kept: the reference
  sparse   only what each sample chose: gather the samples that run, compute, put back
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import ResidualUnit, evaluating
from routekit.routing.decision import Decision

Execution = Callable[[ResidualUnit, Tensor, Decision], Tensor]


def relaxed(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """R F(x) + (1 - r) x (Eq. 4 of Wang et al.), and with more sinks their weighted sum (Eq. 3).

    Args:
        unit: The unit.
        x: Features `[B, C, H, W]`.
        decision: What the images decided.

    Returns:
        Features.
    """
    ran = unit.run(x)
    others = [unit.take(x, sink).to(ran.dtype) for sink in range(1, len(unit.sinks))]
    mixed: Tensor = _Mix.apply(decision.weights.to(ran.dtype), ran, *others)
    return mixed


class _Mix(torch.autograd.Function):
    """The weighted sum of `made`, what each sink makes.

    Its backward pass reads each tensor once and keeps its memory format.

    A weight of 1 gives that sink's output bit for bit.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *made: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *made)
        shares = [weight.view(-1, 1, 1, 1) for weight in weights.unbind(dim=1)]
        if len(made) == 2:
            return torch.lerp(made[1], made[0], shares[0])
        mixed = shares[0] * made[0]
        for share, each in zip(shares[1:], made[1:], strict=True):
            mixed.addcmul_(share, each)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        weights, *made = ctx.saved_tensors
        if made[0].is_contiguous(memory_format=torch.channels_last):
            # The head's gradient comes in the other format, and every unit below would inherit it.
            grad = grad.contiguous(memory_format=torch.channels_last)
        of_sinks = [grad * weight.view(-1, 1, 1, 1) for weight in weights.unbind(dim=1)[:-1]]
        rest = grad
        for each in of_sinks:
            rest = rest - each
        slopes = torch.stack([_dot(grad, each) for each in made], dim=1)
        return slopes, *of_sinks, rest


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [B] of samples [B, C, H, W], without copying channels-last tensors."""
    # Not as a batch of matrix products: on a CPU those are fifteen times slower in bf16, a fifth of a training step.
    products: Tensor = torch.linalg.vecdot(*(t.permute(0, 2, 3, 1).flatten(1) for t in (a, b)))
    return products


def masked(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """Compute all sinks, and keep for each sample the one that its one-hot weights name; as `relaxed`."""
    kept = unit.run(x)
    for sink in range(1, len(unit.sinks)):
        takes = (decision.weights[:, sink] > 0.5).view(-1, 1, 1, 1)
        kept = torch.where(takes, unit.take(x, sink).to(kept.dtype), kept)
    return kept


def sparse(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """Compute for each sample only the sink that its one-hot weights name; as `relaxed`."""
    taken = decision.weights.argmax(dim=1)
    chosen = [(sink, (taken == sink).nonzero().squeeze(1)) for sink in range(len(unit.sinks))]
    chosen = [(sink, rows) for sink, rows in chosen if len(rows)]
    if len(chosen) == 1:
        return unit.take(x, chosen[0][0])
    out = x if unit.keeps else None
    for sink, rows in chosen:
        if unit.keeps and sink == len(unit.sinks) - 1:
            continue
        # One image has no statistics for a batch norm: in training, it is normalised as it would be at inference.
        with evaluating(unit.block, *unit.branches) if unit.block.training and len(rows) == 1 else nullcontext():
            made = unit.take(x[rows], sink)
        if out is None:
            out = torch.empty_like(made[:1].expand(len(x), *made.shape[1:]))
        out = out.to(made.dtype).index_put((rows,), made)
    assert out is not None
    return out
