"""Policy gradients: routers learn from what the decisions that they drew were worth (REINFORCE, Williams, 1992).

Quantities are per image; a unit is a junction at which something is decided.
"""

from typing import Any

import torch
from torch import Tensor

from routekit.routing.decision import RUN, RouteTrace
from routekit.routing.gate import one_hot
from routekit.routing.policy import Choice


class Drawing:
    """A gate that draws each sink by a policy. No gradient flows to the routers.

    It is for one forward pass, whose junctions it counts.

    Args:
        choice: The policy: scores `[B, K]` -> probabilities `[B, K]`.
        locked: How many junctions, the first ones, run whatever the policy says.
    """

    def __init__(self, choice: Choice, locked: int = 0) -> None:
        self.choice, self.locked, self.met = choice, locked, 0

    def __call__(self, logits: Tensor, *, generator: torch.Generator | None = None, **_: Any) -> Tensor:
        """Logits `[B, K]` -> one-hot weights `[B, K]`."""
        self.met += 1
        if self.met <= self.locked:
            return one_hot(torch.full_like(logits[:, 0], RUN, dtype=torch.int64), logits)
        drawn = torch.multinomial(self.choice(logits).detach().cpu(), 1, generator=generator).squeeze(1)
        return one_hot(drawn.to(logits.device), logits)


def policy_gradient(trace: RouteTrace, choice: Choice, advantages: Tensor, locked: int = 0) -> Tensor:
    """Compute the loss whose gradient is that of the expected reward, negated: -A_i log pi(d_i), summed over units.

    Args:
        trace: Of decisions that were drawn.
        choice: The policy pi by which they were drawn.
        advantages: A, `[B, n]` or `[B, 1]`: the reward of each decision over a baseline that does not depend on it.
        locked: How many junctions, the first ones, were not drawn.

    Returns:
        `[B]`.
    """
    drawn = trace.at_units[locked:]
    chances = [(choice(unit.logits) * unit.weights.detach()).sum(dim=1) for unit in drawn]
    logarithms = torch.stack(chances, dim=1).clamp_min(torch.finfo(torch.float32).tiny).log()
    worth = advantages.detach().expand(-1, len(trace.at_units))[:, locked:]
    return -(worth * logarithms).sum(dim=1)


def hybrid_rewards(losses: Tensor, costs: Tensor, weight: float) -> Tensor:
    """Compute what each decision of SkipNet was worth: r_i = -(L + alpha sum of the costs from unit i on).

    Wang et al., "SkipNet" (2018), section 3.3, with the costs of what runs in the place of the rewards for skipping:
    they differ by a constant.

    Args:
        losses: L, `[B]`.
        costs: `[B, n]`, what each unit cost each image, as a share of the dense network.
        weight: alpha.

    Returns:
        `[B, n]`.
    """
    ahead = costs.flip(1).cumsum(dim=1).flip(1)
    return -(losses.unsqueeze(1) + weight * ahead)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Subtract from each reward `[B, n]` the mean of the other images: an unbiased advantage of less variance."""
    count = len(rewards)
    if count < 2:
        return rewards
    return (rewards - rewards.mean(dim=0, keepdim=True)) * (count / (count - 1))


def drop_rewards(right: Tensor, ran: Tensor, weight: float, wrong: float) -> Tensor:
    """Compute the reward of BlockDrop: 1 - w (|u| / K)^2 if the answer is right, else -gamma.

    It is Eq. 3 of Wu et al., "BlockDrop" (2018), with a weight.

    Args:
        right: `[B]`, bool, whether each image is answered rightly.
        ran: u, `[B, K]`, 1 for each unit that ran.
        weight: w; the paper's is 1.
        wrong: gamma.

    Returns:
        `[B]`.
    """
    used = ran.to(torch.float32).mean(dim=1)
    return torch.where(right, 1 - weight * used.square(), torch.full_like(used, -wrong))
