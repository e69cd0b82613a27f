"""What a decision is, and the trace of all decisions that a batch took through a network."""

from dataclasses import dataclass

import torch
from torch import Tensor

# The sinks of a skip junction. Running is sink 0, as in Eq. 3 of Wang et al. ("0-based indexing").
RUN, SKIP = 0, 1


@dataclass(frozen=True)
class Decision:
    """What a batch decided at one junction with K sinks.

    logits:   [B, K] the router's scores
    weights:  [B, K] the share of each sink in the forward pass, the r_i of Eq. 3; differentiable in training,
              one-hot under hard routing
    choice:   [B] int64, the sink that inference takes: the largest logit (Eq. 11)
    """

    logits: Tensor
    weights: Tensor
    choice: Tensor

    @property
    def probs(self) -> Tensor:
        """[B, K] the probabilities that the logits stand for."""
        return torch.softmax(self.logits, dim=1)


@dataclass(frozen=True)
class RouteTrace:
    """The routes of a batch: the only thing that cost, objective, evaluation and reports read.

    logits:     [B, classes] the network's output
    decisions:  one Decision per junction, in the order of the network
    features:   [B, C, H, W] each, what left the last unit of each stage; empty unless they were asked for
    """

    logits: Tensor
    decisions: tuple[Decision, ...]
    features: tuple[Tensor, ...] = ()

    @property
    def gates(self) -> Tensor:
        """[B, n] how much of each unit ran, the routing variables r_i (Eq. 3); differentiable in training."""
        return self._stack([d.weights[:, RUN] for d in self.decisions])

    @property
    def routes(self) -> Tensor:
        """[B, n] bool: the units that inference runs (Eq. 11)."""
        return self._stack([d.choice == RUN for d in self.decisions]).bool()

    @property
    def margins(self) -> Tensor:
        """[B, n] by how much each router prefers to run its unit."""
        return self._stack([d.logits[:, RUN] - d.logits[:, SKIP] for d in self.decisions])

    @property
    def probs(self) -> Tensor:
        """[B, n] the probability of running each unit."""
        return self._stack([d.probs[:, RUN] for d in self.decisions])

    def _stack(self, columns: list[Tensor]) -> Tensor:
        return torch.stack(columns, dim=1) if columns else self.logits.new_zeros(len(self.logits), 0)
