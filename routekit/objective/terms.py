"""The terms of the objective, each a pure function. Equation numbers are those of Wang et al. (DRN).

Routes are `[L, M, n]`: L samples, M augmented copies of each, n routing variables r_i in [0, 1].
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.routing.decision import SKIP, Decision


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute L_cls of Eq. 9 of each sample: the cross-entropy.

    Args:
        logits: `[B, classes]`.
        labels: `[B]`.

    Returns:
        `[B]`.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Compute knowledge distillation (Hinton et al., 2015) of each sample: T^2 KL(teacher || student).

    Args:
        logits: `[B, classes]`.
        teacher_logits: `[B, classes]`.
        temperature: T.

    Returns:
        `[B]`.
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def decoupled_distillation(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, beta: float
) -> Tensor:
    """Compute decoupled knowledge distillation (Eq. 7 of Zhao et al., 2022, with alpha = 1) of each sample.

    T^2 (TCKD + beta NCKD). TCKD compares how likely the label is. NCKD compares the other classes, given that it is one
    of them. In the classical term, the weight of NCKD is the teacher's doubt, 1 minus the probability of the label at T
    (Eq. 5), so that images of which the teacher is sure teach little about other classes.

    Args:
        logits: `[B, classes]`.
        teacher_logits: `[B, classes]`.
        labels: `[B]`.
        temperature: T.
        beta: The weight of NCKD.

    Returns:
        `[B]`.
    """
    is_label = F.one_hot(labels, logits.shape[1]).bool()

    def parted(scores: Tensor) -> tuple[Tensor, Tensor]:
        """Logits -> logarithms: of the label and of all others together `[B, 2]`, and of each given all others."""
        whole = F.log_softmax(scores / temperature, dim=1)
        others = whole[~is_label].view(len(whole), -1)
        rest = others.logsumexp(dim=1, keepdim=True)
        return torch.cat([whole[is_label].unsqueeze(1), rest], dim=1), others - rest

    tckd, nckd = (
        F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        for student, teacher in zip(parted(logits), parted(teacher_logits), strict=True)
    )
    return temperature**2 * (tckd + beta * nckd)


def reach_weights(earlier: Tensor, reached: float) -> Tensor:
    """Weigh the images of a batch for a classifier by how likely they reach it: by how unsure the one before it is.

    The weight is 1 - reached + reached q / mean(q), where q is 1 minus the largest probability of the earlier answer,
    which is an estimate of how likely that is wrong. No gradient flows.

    Args:
        earlier: `[B, classes]`, the logits of the classifier before.
        reached: The share of the weight that goes by q, in [0, 1].

    Returns:
        `[B]`, of mean 1.
    """
    doubt = 1 - earlier.detach().softmax(dim=1).amax(dim=1)
    # Where the earlier answer is sure of all images, all weights are 1.
    doubt = doubt + torch.finfo(doubt.dtype).eps
    return 1 - reached + reached * doubt / doubt.mean()


def feature_distillation(features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Compute hints: the distance to the teacher's features (Eq. 3 of Romero et al., 2015).

    Both networks have the same architecture, so no regressor is needed between them. The squared distance of each stage
    is a fraction of the teacher's squared norm, so that all stages have equal weight.

    Args:
        features: `[B, C, H, W]` after each stage.
        teacher_features: The same of the teacher.

    Returns:
        A scalar, the mean over stages.
    """
    shares = []
    for own, other in zip(features, teacher_features, strict=True):
        # bf16 cannot hold the sum of so many squares.
        precise = torch.promote_types(own.dtype, torch.float32)
        own, other = own.to(precise), other.to(precise)
        shares.append((own - other).square().mean() / other.square().mean().clamp(min=1e-12))
    return torch.stack(shares).mean()


def consistency(routes: Tensor, margin: float) -> Tensor:
    """Compute L_consistency (Eq. 5): [||route^ij - mean(route^i)|| - d_c]_+^2, the mean over samples and copies.

    Copies of one sample should take one route. With one copy, the term is 0.

    Args:
        routes: `[L, M, n]`.
        margin: d_c.

    Returns:
        A scalar.
    """
    distance: Tensor = torch.linalg.vector_norm(routes - routes.mean(dim=1, keepdim=True), dim=2)
    return (distance - margin).clamp(min=0).square().mean()


def diversity(routes: Tensor, margin: float) -> Tensor:
    """Compute L_diversity (Eq. 6): [d_d - ||mean(route^i) - mean(route^j)||]_+^2, the mean over pairs of samples.

    Different samples should take different routes. Both orders of a pair count the same, so one is computed.

    Args:
        routes: `[L, M, n]`.
        margin: d_d.

    Returns:
        A scalar.
    """
    samples = len(routes)
    if samples < 2:
        return routes.new_zeros(())
    mean = routes.mean(dim=1)
    first, second = torch.triu_indices(samples, samples, offset=1, device=routes.device)
    distance: Tensor = torch.linalg.vector_norm(mean[first] - mean[second], dim=1)
    return (margin - distance).clamp(min=0).square().mean()


def cost(expected: Tensor, dense: float) -> Tensor:
    """Compute L_cost (Eq. 8): the mean of the expected cost, as a fraction of the dense network's.

    The paper does not give the unit of c_i. With a fraction, one weight has the same meaning for every network.

    Args:
        expected: `[B]`, the sum of c_i r_i.
        dense: The cost of the dense network, in the same unit.

    Returns:
        A scalar.
    """
    return expected.mean() / dense


def ponder(decisions: Sequence[Decision], stages: Sequence[range], epsilon: float) -> Tensor:
    """Compute the ponder cost of adaptive computation time: rho = N + R, summed over stages (Graves, 2016).

    N is the number of units that ran, and R what remained for the last one. N has no gradient: R lets scores before the
    last unit grow, until a unit less runs. Where positions halt, rho is their mean (Figurnov et al., 2017).

    Args:
        decisions: At all units but the first one of each stage. The score of going on is 1 - epsilon less the scores of
            the units before.
        stages: The decisions of each stage.
        epsilon: How much less than 1 lets a stage halt.

    Returns:
        `[B]`, as a share of the number of units.
    """
    total, units = torch.zeros((), device=decisions[0].logits.device), 0
    for stage in stages:
        count = remainder = torch.ones_like(decisions[stage.start].logits[:, :1])
        for decision in decisions[stage.start : stage.stop]:
            ran = decision.weights[:, :SKIP] > 0.5
            before = decision.logits[:, :SKIP] - decision.logits[:, SKIP:]
            if decision.positions is not None:
                before = decision.positions.flatten(1)
                ran = ran & (before >= 0)
            count = count + ran
            remainder = torch.where(ran, before + epsilon, remainder)
        total, units = total + (count + remainder).mean(dim=1), units + len(stage) + 1
    return total / units


def regularization(routes: Tensor, over: Literal["copies", "units"] = "copies") -> Tensor:
    """Compute L_reg (Eq. 10): ||r_i - mean(route_i,:)||, the mean over samples and copies.

    The paper does not say over what the mean is. In Eq. 5, route^i,: are the routes of all copies of sample i: so the
    mean is the route of a sample, and the term pulls each copy's route there, without a margin. With one copy it is 0.
    The other reading is the mean over units, a number: it pulls each gate to the others of its route. Soft gates can
    be equal at 1/2, where hard routing knows nothing of what the network learned.

    Args:
        routes: `[L, M, n]`.
        over: What the mean is over: "copies" or "units".

    Returns:
        A scalar.
    """
    mean = routes.mean(dim=1 if over == "copies" else 2, keepdim=True)
    distance: Tensor = torch.linalg.vector_norm(routes - mean, dim=2)
    return distance.mean()
