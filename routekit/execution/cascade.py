"""A cascade's fast form: each network in its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from routekit.execution.executor import Answer, SparseExecutor
from routekit.execution.measured import MeasuredExecutor
from routekit.network.cascade import Cascade, CascadeTrace
from routekit.network.network import RoutedNetwork


class CascadeExecutor(nn.Module):
    """Executes `cascade` with one executor for each of its networks: the same decisions, logits up to rounding."""

    def __init__(self, cascade: Cascade, executors: Sequence[SparseExecutor | MeasuredExecutor]) -> None:
        super().__init__()
        self.cascade = cascade
        self.executors = nn.ModuleList(executors)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Answer:
        """Images [B, C, H, W], normalised as for the first network -> log-probabilities, and margins."""

        def ask(number: int, images: Tensor, forced: Tensor | None) -> CascadeTrace:
            assert forced is None
            answer: Answer = self.executors[number](images.contiguous(memory_format=torch.channels_last))
            return CascadeTrace(answer.logits, answer.routes, answer.margins)

        trace = self.cascade.walk(x, ask)
        return Answer(trace.logits, trace.margins)


def sparse_form(network: RoutedNetwork | Cascade, kind: type[SparseExecutor] = SparseExecutor) -> nn.Module:
    """The executor of a prepared network, or of a prepared cascade."""
    if isinstance(network, Cascade):
        return CascadeExecutor(network, [kind(each) for each in network.networks])
    return kind(network)
