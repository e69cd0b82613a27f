"""What a policy of units is rewarded for: SkipNet's hybrid reward, and BlockDrop's for few units and right answers."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.routing.decision import SKIP, RouteTrace
from routekit.routing.policy import Choice, softly
from routekit.routing.reinforce import drop_rewards, hybrid_rewards, leave_one_out, policy_gradient


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class RewardConfig:
    """How units learn from what their decisions were worth, in the last part of the phase in which they learn.

    Attributes:
        kind: "skipnet" (Wang et al., 2018): each decision is rewarded for the loss and for the cost from its unit on.
            "blockdrop" (Wu et al., 2018): a route is rewarded for a right answer and few units, over what the likeliest
            route gets ("self-critical").
        wrong: gamma of BlockDrop, the penalty for a wrong answer.
        explore: The share of decisions that is uniform. BlockDrop bounds chances to [1 - alpha, alpha], which for two
            sinks is a share of 2 (1 - alpha).
        share: The part of the phase, at its end, in which decisions are drawn. Before, training relaxes them, and the
            cost does not count.
        curriculum: The part of that in which only some units decide: the last one first, then one more after another.
            Meanwhile the policy alone learns (section 3.4 of Wu et al.).
    """

    kind: Literal["skipnet", "blockdrop"] = "skipnet"
    wrong: Annotated[float, Field(ge=0)] = 5.0
    explore: Annotated[float, Field(ge=0, lt=1)] = 0.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.0

    def choice(self, temperature: float) -> Choice:
        """Build the policy by which decisions are drawn."""
        return softly(temperature, epsilon=self.explore)


@dataclass(frozen=True)
class Drawn:
    """How the decisions of a batch were drawn.

    Attributes:
        choice: The policy.
        locked: How many units, the first ones, did not decide.
        likeliest: The trace of the likeliest decisions for the same images. None where no reward compares with it.
    """

    choice: Choice
    locked: int = 0
    likeliest: RouteTrace | None = None


def reward_term(
    trace: RouteTrace,
    labels: Tensor,
    losses: Tensor,
    costs: CostTable,
    config: RewardConfig,
    drawn: Drawn,
    *,
    weight: float,
) -> Tensor:
    """Compute the loss by which routers learn from drawn decisions.

    Args:
        trace: Of drawn decisions.
        labels: `[B]`.
        losses: `[B]`, the loss of each image.
        costs: The cost table.
        config: The rewards.
        drawn: How they were drawn.
        weight: Of the cost, by the budget controller.

    Returns:
        A scalar.
    """
    if config.kind == "blockdrop":
        assert drawn.likeliest is not None
        both = (trace, drawn.likeliest)
        routes = [each.gates[:, costs.layout.of_units] for each in both]
        answers = [each.logits.argmax(dim=1) == labels for each in both]
        own, likeliest = (
            drop_rewards(right, ran, weight, config.wrong) for right, ran in zip(answers, routes, strict=True)
        )
        advantages = (own - likeliest).unsqueeze(1)
    else:
        advantages = leave_one_out(hybrid_rewards(losses.detach(), _spent(trace, costs), weight))
    return policy_gradient(trace, drawn.choice, advantages, drawn.locked).mean()


def _spent(trace: RouteTrace, costs: CostTable) -> Tensor:
    """What each unit cost each image `[B, n]`, as a share of the dense network."""
    extra = costs.extra.to(trace.logits) / costs.dense
    columns = [part for part, stops in zip(costs.layout.junctions, costs.layout.is_stop, strict=True) if not stops]
    spent = [
        (unit.weights.detach()[:, :SKIP] * extra[part]).sum(dim=1)
        for unit, part in zip(trace.at_units, columns, strict=True)
    ]
    return torch.stack(spent, dim=1)
