"""Three ways to execute a unit for a batch whose samples decided differently.

They take the same decisions and differ in what they compute:
  relaxed  both ways on, mixed by the gate: training, where the router needs the gradient of both (Eq. 4)
  masked   both ways on, one kept: the reference
  sparse   only what each sample chose: gather the samples that run, compute, put back
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import ResidualUnit
from routekit.routing.decision import RUN, Decision

Execution = Callable[[ResidualUnit, Tensor, Decision], Tensor]


def relaxed(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """R F(x) + (1 - r) x (Eq. 4 of Wang et al.); x [B, C, H, W]."""
    ran = unit.run(x)
    mixed: Tensor = _Mix.apply(unit.skip(x).to(ran.dtype), ran, decision.weights[:, RUN].to(ran.dtype))
    return mixed


class _Mix(torch.autograd.Function):
    """(1 - gate) skipped + gate * ran, with a backward pass that reads each tensor once and keeps its memory format.

    `lerp` is exact at both ends: gate = 1 is the unit's output bit for bit.
    """

    @staticmethod
    def forward(ctx: Any, skipped: Tensor, ran: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(skipped, ran, gate)
        return torch.lerp(skipped, ran, gate.view(-1, 1, 1, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        skipped, ran, gate = ctx.saved_tensors
        if ran.is_contiguous(memory_format=torch.channels_last):
            # The head's gradient comes in the other format, and every unit below would inherit it.
            grad = grad.contiguous(memory_format=torch.channels_last)
        of_ran = grad * gate.view(-1, 1, 1, 1)
        return grad - of_ran, of_ran, _dot(grad, ran) - _dot(grad, skipped)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [B] of samples [B, C, H, W], without copying channels-last tensors."""
    rows = [t.permute(0, 2, 3, 1).reshape(len(t), 1, -1) for t in (a, b)]
    return torch.bmm(rows[0], rows[1].transpose(1, 2)).view(-1)


def masked(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """Compute both ways on and keep, per sample, the one its one-hot weights name."""
    ran = unit.run(x)
    return torch.where((decision.weights[:, RUN] > 0.5).view(-1, 1, 1, 1), ran, unit.skip(x).to(ran.dtype))


def sparse(unit: ResidualUnit, x: Tensor, decision: Decision) -> Tensor:
    """Compute for each sample only the way that its one-hot weights name."""
    runs = decision.weights[:, RUN] > 0.5
    count = int(runs.sum())
    if count == len(runs):
        return unit.run(x)
    if count == 0:
        return unit.skip(x)
    chosen = runs.nonzero().squeeze(1)
    ran = unit.run(x[chosen])
    if unit.shortcut is None:
        return x.to(ran.dtype).index_put((chosen,), ran)
    others = (~runs).nonzero().squeeze(1)
    skipped = unit.skip(x[others]).to(ran.dtype)
    return (
        torch.empty_like(ran[:1].expand(len(x), *ran.shape[1:])).index_put((chosen,), ran).index_put((others,), skipped)
    )
