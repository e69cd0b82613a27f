"""Count the cost of a piece of a network with fvcore, in its unit: one multiply-add is 1 FLOP."""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    # fvcore counts through torch.jit, which torch has deprecated: nothing that a user could mend.
    warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
    from fvcore.nn import FlopCountAnalysis

CONVENTION = "fvcore: 1 multiply-add = 1 FLOP (MACs)"


def describe(flops: float) -> str:
    """A cost in words, with its convention and the figure of the other one: `1.50e8 FLOPs (MACs; 3.00e8 as 2xMAC)`."""
    return f"{_short(flops)} FLOPs (MACs; {_short(2 * flops)} as 2xMAC)"


def _short(flops: float) -> str:
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@dataclass(frozen=True)
class Count:
    """FLOPs of one call, and the operators for which fvcore has no rule (it counts those as zero)."""

    flops: int
    uncounted: Counter[str]


class _Piece(nn.Module):
    """A callable as a module, which is what fvcore traces; `owner` holds the parameters that it uses."""

    def __init__(self, call: Callable[..., Any], owner: nn.Module) -> None:
        super().__init__()
        self.call = call
        self.owner = owner

    def forward(self, *inputs: Any) -> Any:
        return self.call(*inputs)


@torch.no_grad()
def count(call: Callable[..., Any], inputs: tuple[Any, ...], owner: nn.Module) -> Count:
    """Count the multiply-adds of `call(*inputs)`.

    Args:
        call: The call, traced by fvcore.
        inputs: Its inputs.
        owner: The module whose parameters it uses.

    Returns:
        The count.
    """
    analysis = (
        FlopCountAnalysis(_Piece(call, owner).eval(), inputs)
        .unsupported_ops_warnings(False)
        .uncalled_modules_warnings(False)
        .tracer_warnings("none")
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        return Count(flops=int(analysis.total()), uncounted=analysis.unsupported_ops())
