"""The objective: the weighted, named sum of the terms (Eq. 9 of Wang et al.)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.objective import terms
from routekit.objective.policy import PolicyConfig, policy_terms, weighed
from routekit.routing.decision import RouteTrace
from routekit.routing.policy import Choice

# Logits [B, classes] and labels [B] -> the loss of each image [B].
Classification = Callable[[Tensor, Tensor], Tensor]
Weight = Annotated[float, Field(ge=0)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ObjectiveWeights:
    """The weights and margins of Eq. 9 (defaults: those published for CIFAR), and of both kinds of distillation.

    The cost's weight mu is not here: the budget controller adapts it. `policy` is how exits learn.
    """

    consistency: Weight = 0.2
    diversity: Weight = 0.2
    regularization: Weight = 0.5
    consistency_margin: Weight = 0.2
    diversity_margin: Weight = 0.5
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    distillation_temperature: Annotated[float, Field(gt=0)] = 4.0
    feature_distillation: Weight = 0.0
    policy: PolicyConfig = PolicyConfig()

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with the dense network."""
        return self.distillation > 0 or self.feature_distillation > 0

    @property
    def error_scale(self) -> float:
        """How much larger a large error is than in cross-entropy: distilled at a temperature T, about T times."""
        return 1 + self.distillation * (self.distillation_temperature - 1)

    @property
    def teaches_everywhere(self) -> bool:
        """Whether a term teaches all of a network from all images, wherever its exits let them stop."""
        return self.policy.heads > 0 or self.feature_distillation > 0


@dataclass(frozen=True)
class Losses:
    """The total to minimise, and what each term gave: unweighted, but for those by which exits learn.

    gains: [exits] by how much the mean error falls from each exit to the end of the network; None without exits
    """

    total: Tensor
    by_name: dict[str, Tensor]
    gains: Tensor | None = None


def objective(
    trace: RouteTrace,
    labels: Tensor,
    costs: CostTable,
    weights: ObjectiveWeights,
    *,
    cost_weight: float,
    copies: int = 1,
    teacher: RouteTrace | None = None,
    routing: bool = True,
    k_cpt: float | Tensor = 0.0,
    choice: Choice | None = None,
    squares: Tensor | None = None,
    classification: Classification = terms.classification,
) -> Losses:
    """Sum the terms for one batch of B = L * copies images, the copies of a sample adjacent; labels are [B].

    With a teacher, cross-entropy and distillation share one unit of weight: (1 - a) and a. `routing=False` leaves
    the routing terms out: the routers are frozen, or there are none. Exits go on learning: by the policy's `choice`,
    where a multiply-add is worth `k_cpt` and the sections have `squares` of weights, and their classifiers from all
    images. Without a choice, exits decide by a rule that does not learn, and the losses of all classifiers are summed,
    as in BranchyNet (Eq. 1 of Teerapittayanon et al., 2016, with weights of 1).
    """
    by_name = {"classification": classification(trace.logits, labels).mean()}
    share = weights.distillation if teacher is not None else 0.0
    total = (1 - share) * by_name["classification"]
    if teacher is not None and share > 0:
        by_name["distillation"] = terms.distillation(
            trace.logits, teacher.logits, weights.distillation_temperature
        ).mean()
        total = total + share * by_name["distillation"]
    gains = None
    if len(trace.leaves) > 1:
        taught = teacher if share > 0 else None
        errors = [_errors(leaf, labels, weights, taught, classification) for leaf in trace.leaves]
        by_policy = {"heads": torch.stack(errors).mean(dim=1).sum()}
        known = weighed(trace, labels, errors, weights.policy)
        means = torch.stack(known).mean(dim=1).detach()
        gains = means[:-1] - means[-1]
        if choice is not None:
            by_policy["heads"] = weights.policy.heads * by_policy["heads"]
            by_policy |= policy_terms(trace, costs, known, weights.policy, k_cpt=k_cpt, choice=choice, squares=squares)
        by_name |= by_policy
        total = torch.stack(list(by_policy.values())).sum()
    if teacher is not None and weights.feature_distillation > 0:
        # Forms of a network have the same features to learn, but for those with other channels between blocks.
        (whole,) = teacher.features
        hinted = [
            terms.feature_distillation(own, whole)
            for own in reversed(trace.features)
            if [stage.shape for stage in own] == [stage.shape for stage in whole]
        ]
        if hinted:
            by_name["feature_distillation"] = torch.stack(hinted).sum()
            total = total + weights.feature_distillation * by_name["feature_distillation"]
    if not routing:
        return Losses(total, by_name, gains)

    gates = trace.gates
    routes = gates.view(-1, copies, gates.shape[1])
    by_name["cost"] = terms.cost(costs.expected(trace), costs.dense)
    total = total + cost_weight * by_name["cost"]
    # A term without weight is not computed: Eq. 6 alone looks at every pair of samples.
    if weights.consistency > 0 and copies > 1:
        by_name["consistency"] = terms.consistency(routes, weights.consistency_margin)
        total = total + weights.consistency * by_name["consistency"]
    if weights.diversity > 0:
        by_name["diversity"] = terms.diversity(routes, weights.diversity_margin)
        total = total + weights.diversity * by_name["diversity"]
    if weights.regularization > 0:
        by_name["regularization"] = terms.regularization(gates)
        total = total + weights.regularization * by_name["regularization"]
    return Losses(total, by_name, gains)


def _errors(
    logits: Tensor,
    labels: Tensor,
    weights: ObjectiveWeights,
    teacher: RouteTrace | None,
    classification: Classification,
) -> Tensor:
    """c_err [B] of a classifier's logits, as it is minimised: cross-entropy, shared with distillation."""
    error = classification(logits, labels)
    if teacher is None:
        return error
    share = weights.distillation
    hint = terms.distillation(logits, teacher.logits, weights.distillation_temperature)
    return (1 - share) * error + share * hint
