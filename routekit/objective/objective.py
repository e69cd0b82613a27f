"""The objective: the weighted, named sum of the terms (Eq. 9 of Wang et al.)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.junctions.act import EPSILON
from routekit.objective import terms
from routekit.objective.policy import PolicyConfig, policy_terms, weighed
from routekit.objective.reward import Drawn, RewardConfig, reward_term
from routekit.routing.decision import RouteTrace
from routekit.routing.policy import Choice

# Logits [B, classes] and labels [B] -> the loss of each image [B].
Classification = Callable[[Tensor, Tensor], Tensor]
Weight = Annotated[float, Field(ge=0)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ObjectiveWeights:
    """The weights and margins of Eq. 9, and of both kinds of distillation.

    The recipe drn has the weights that are published for CIFAR. The cost's weight mu is not here: the budget controller
    adapts it.

    Attributes:
        consistency: lambda.
        diversity: alpha.
        regularization: gamma.
        regularization_over: What the mean of Eq. 10 is over: "copies" of a sample, which agrees with Eq. 5, or "units".
        consistency_margin: d_c of Eq. 5.
        diversity_margin: d_d of Eq. 6.
        distillation: The share of the teacher's answer in what classifiers learn.
        distillation_temperature: T of Hinton et al.
        decoupled: beta of decoupled distillation (Eq. 7 of Zhao et al., 2022). 0 for that of Hinton et al.
        feature_distillation: The weight of the distance to the teacher's features.
        reached: How much a classifier behind another learns from the images that the other is unsure of, in [0, 1].
            With 0, it learns from all images alike (`terms.reach_weights`). It has no effect on what a policy weighs.
        policy: How exits and forks learn.
        reward: For what units are rewarded whose decisions are drawn. None where they learn otherwise.
    """

    consistency: Weight = 0.0
    diversity: Weight = 0.0
    regularization: Weight = 0.0
    regularization_over: Literal["copies", "units"] = "copies"
    consistency_margin: Weight = 0.2
    diversity_margin: Weight = 0.5
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    distillation_temperature: Annotated[float, Field(gt=0)] = 4.0
    decoupled: Weight = 0.0
    feature_distillation: Weight = 0.0
    reached: Annotated[float, Field(ge=0, le=1)] = 0.0
    policy: PolicyConfig = PolicyConfig()
    reward: RewardConfig | None = None

    def check(self, copies: int) -> None:
        """Raise InputError if a term compares copies of an image, and there is but one of each."""
        over_copies = {"consistency": self.consistency, "regularization": self.regularization}
        if self.regularization_over == "units":
            del over_copies["regularization"]
        for name, weight in over_copies.items():
            if weight > 0 and copies < 2:
                raise InputError(f"objective.{name} compares copies of an image: training.copies=2, or more")

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with the dense network."""
        return self.distillation > 0 or self.feature_distillation > 0

    @property
    def unpriced(self) -> float:
        """The part of the phase in which units learn, at its beginning, in which the cost does not count.

        Where decisions are rewarded once they are drawn, training begins with the errors alone, as SkipNet's does.
        """
        return 0.0 if self.reward is None else 1 - self.reward.share

    @property
    def error_scale(self) -> float:
        """How much larger large errors are than in cross-entropy. Distillation at temperature T makes them T times."""
        return 1 + self.distillation * (self.distillation_temperature - 1)

    @property
    def teaches_everywhere(self) -> bool:
        """Whether a term teaches all parts of a network from all images, also from those that stop before."""
        return self.policy.heads > 0 or self.feature_distillation > 0


@dataclass(frozen=True)
class Losses:
    """The loss of a batch.

    Attributes:
        total: The sum to minimise.
        by_name: Each term. Those by which exits learn contain their weight, the others do not.
        gains: `[stops]`, by how much the mean error falls from each stop to the end. None without stops.
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
    drawn: Drawn | None = None,
    stages: Sequence[range] = (),
    classification: Classification = terms.classification,
) -> Losses:
    """Compute L_total (Eq. 9) of one batch.

    With a teacher, cross-entropy and distillation share one unit of weight. With stops, the errors of all answers take
    the place of that of the last one. Without a policy, they are summed, as in BranchyNet (Eq. 1 of Teerapittayanon et
    al., 2016, with weights of 1). With a policy, its terms are added.

    Args:
        trace: Of B = L * copies images. The copies of a sample are adjacent.
        labels: `[B]`.
        costs: The cost table.
        weights: The weights.
        cost_weight: mu, the weight of the cost.
        copies: M, the augmented copies of each sample.
        teacher: The trace of the dense network, or None.
        routing: Whether to add the terms of routing. They have no use if routers are frozen, or if there are none.
        k_cpt: The price of a unit of cost, by which exits learn; `[B]` for a price for each image.
        choice: The policy by which exits and forks learn. None if exits decide by a rule.
        squares: `[layers]`, the sum of the squared weights of each layer (`reach_of`). None without L2.
        drawn: How decisions of units were drawn; None if they were not. A network that learns from rewards pays for
            its cost from the first drawn decision on.
        stages: The decisions of each stage that halts by scores, whose ponder cost is the cost. Empty for others.
        classification: The loss of each image.

    Returns:
        The losses.
    """
    share = weights.distillation if teacher is not None else 0.0

    def errors_of(logits: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The terms of c_err of an answer: the weight and the values `[B]` of each."""
        found = {"classification": (1 - share, classification(logits, labels))}
        if teacher is not None and share > 0:
            known, temperature = teacher.logits, weights.distillation_temperature
            if weights.decoupled > 0:
                hint = terms.decoupled_distillation(logits, known, labels, temperature, weights.decoupled)
            else:
                hint = terms.distillation(logits, known, temperature)
            found["distillation"] = (share, hint)
        return found

    by_name: dict[str, Tensor] = {}
    error: Tensor | float = 0.0
    gains, nothing = None, torch.zeros((), device=labels.device)
    total = nothing

    def add(name: str, weight: float, term: Tensor) -> None:
        nonlocal total
        by_name[name] = term
        total = total + weight * term

    for name, (weight, of_each) in errors_of(trace.logits).items():
        add(name, weight, of_each.mean())
        error = error + weight * of_each
    if len(trace.leaves) > 1:
        parts = [errors_of(leaf).values() for leaf in trace.leaves]
        errors = [sum((weight * error for weight, error in part), nothing) for part in parts]
        # A policy weighs errors by reach itself. So these weights are for what is minimised on all images.
        shown = errors if weights.reached == 0 else _by_reach(errors, trace.leaves, weights.reached)
        by_policy = {"heads": torch.stack(shown).mean(dim=1).sum()}
        c_err = weighed(trace, labels, errors, weights.policy)
        means = torch.stack(c_err).mean(dim=1).detach()
        gains = means[:-1] - means[-1]
        if choice is not None:
            by_policy["heads"] = weights.policy.heads * by_policy["heads"]
            by_policy |= policy_terms(trace, costs, c_err, weights.policy, k_cpt=k_cpt, choice=choice, squares=squares)
        by_name |= by_policy
        total = torch.stack(list(by_policy.values())).sum()
    if teacher is not None and weights.feature_distillation > 0:
        # Forms of a network have the same features to learn, unless they have other channels between blocks.
        (whole,) = teacher.features
        hints = [
            terms.feature_distillation(own, whole)
            for own in reversed(trace.features)
            if [stage.shape for stage in own] == [stage.shape for stage in whole]
        ]
        if hints:
            add("feature_distillation", weights.feature_distillation, torch.stack(hints).sum())
    if not routing:
        return Losses(total, by_name, gains)

    gates = trace.gates
    routes = gates.view(-1, copies, gates.shape[1])
    if stages:
        add("ponder", cost_weight, terms.ponder(trace.at_units, stages, EPSILON).mean())
    elif weights.reward is None or drawn is not None:
        add("cost", cost_weight, terms.cost(costs.expected(trace), costs.dense))
    if drawn is not None and weights.reward is not None:
        assert isinstance(error, Tensor)
        add("reward", 1.0, reward_term(trace, labels, error, costs, weights.reward, drawn, weight=cost_weight))
    # A term without weight is not computed: Eq. 6 alone compares every pair of samples.
    if weights.consistency > 0:
        add("consistency", weights.consistency, terms.consistency(routes, weights.consistency_margin))
    if weights.diversity > 0:
        add("diversity", weights.diversity, terms.diversity(routes, weights.diversity_margin))
    if weights.regularization > 0:
        add("regularization", weights.regularization, terms.regularization(routes, weights.regularization_over))
    return Losses(total, by_name, gains)


def _by_reach(errors: list[Tensor], leaves: Sequence[Tensor], reached: float) -> list[Tensor]:
    """Errors `[B]` of each leaf -> those of each but the first, weighed by how unsure the leaf before is."""
    later = zip(errors[1:], leaves[:-1], strict=True)
    return [errors[0], *(terms.reach_weights(earlier, reached) * error for error, earlier in later)]
