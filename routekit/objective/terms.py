"""The terms of the objective, each a pure function. Equation numbers are those of Wang et al. (DRN).

Routes are `[L, M, n]`: L samples, M augmented copies of each, n routing variables r_i in [0, 1].
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


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


def regularization(gates: Tensor) -> Tensor:
    """Compute L_reg (Eq. 10): ||r_i - mean(route_i,:)||, the mean over the gates `[B, n]` of samples.

    It is read literally: r_i is the vector of sample i's routing variables, and mean(route_i,:) its mean over units.
    """
    distance: Tensor = torch.linalg.vector_norm(gates - gates.mean(dim=1, keepdim=True), dim=1)
    return distance.mean()
