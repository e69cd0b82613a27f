"""The terms of the objective, each a pure function; equation numbers are those of Wang et al. (DRN).

Routes are [L, M, n]: L samples, M augmented copies of each, n routing variables r_i in [0, 1].
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """L_cls of Eq. 9, per sample: the cross-entropy [B] of logits [B, classes] against labels [B]."""
    return F.cross_entropy(logits, labels, reduction="none")


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Knowledge distillation (Hinton et al., 2015), per sample: T^2 KL(teacher || student) [B] at temperature T."""
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def feature_distillation(features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Hints (Romero et al., 2015, Eq. 3): match the teacher's features, [B, C, H, W] after each stage.

    Both networks have one architecture, so there is nothing to regress between them. The squared distance of each
    stage is a fraction of the teacher's squared norm, so that no stage outweighs another; the mean over stages.
    """
    shares = []
    for own, other in zip(features, teacher_features, strict=True):
        # bf16 cannot hold the sum of so many squares.
        precise = torch.promote_types(own.dtype, torch.float32)
        own, other = own.to(precise), other.to(precise)
        shares.append((own - other).square().mean() / other.square().mean().clamp(min=1e-12))
    return torch.stack(shares).mean()


def consistency(routes: Tensor, margin: float) -> Tensor:
    """L_consistency, Eq. 5: copies of one sample should take one route.

    The squared excess over `margin` (d_c) of each copy's distance to the mean route of its sample, averaged over
    samples and copies. With one copy it is 0.
    """
    distance: Tensor = torch.linalg.vector_norm(routes - routes.mean(dim=1, keepdim=True), dim=2)
    return (distance - margin).clamp(min=0).square().mean()


def diversity(routes: Tensor, margin: float) -> Tensor:
    """L_diversity, Eq. 6: different samples should take different routes.

    The squared shortfall below `margin` (d_d) of the distance between the mean routes of every two samples,
    averaged over the L (L - 1) ordered pairs.
    """
    samples = len(routes)
    if samples < 2:
        return routes.new_zeros(())
    mean = routes.mean(dim=1)
    first, second = torch.triu_indices(samples, samples, offset=1, device=routes.device)
    distance: Tensor = torch.linalg.vector_norm(mean[first] - mean[second], dim=1)
    return (margin - distance).clamp(min=0).square().mean()


def cost(expected: Tensor, dense: float) -> Tensor:
    """L_cost, Eq. 8: the batch mean of the expected cost [B], as a fraction of the dense network's.

    The paper leaves the unit of c_i open; as a fraction, one weight means the same for every network.
    """
    return expected.mean() / dense


def regularization(gates: Tensor) -> Tensor:
    """L_reg, Eq. 10: the batch mean of the distance between a sample's route [B, n] and its own mean over units.

    Read literally: r_i is the vector of sample i's routing variables, mean(route_i,:) the scalar mean over units.
    """
    distance: Tensor = torch.linalg.vector_norm(gates - gates.mean(dim=1, keepdim=True), dim=1)
    return distance.mean()
