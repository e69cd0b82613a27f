"""The threshold of a cascade, set on validation images so that their mean cost is the budget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.cascade import CascadeCost
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.macs import describe
from routekit.network.cascade import Cascade

# No certainty is larger.
EVERYBODY = 1.0
# Means of costs are sums in floating point: so far a target may lie beyond what can be reached, and be that.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Doubts:
    """What every image would cost and how sure each network would be, were all of them asked.

    certainties:  [N, k - 1] of each network but the last
    costs:        [N, k] MACs of each network's own route
    """

    certainties: Tensor
    costs: Tensor

    def cost(self, threshold: float) -> float:
        """The mean cost, MACs, if the next network is asked at a certainty of at most `threshold`."""
        asks = (self.certainties <= threshold).cumprod(dim=1).double()
        return float((self.costs[:, 0] + (asks * self.costs[:, 1:]).sum(dim=1)).mean())

    def threshold(self, target: float) -> float:
        """The threshold whose mean cost is nearest to `target` MACs.

        Raises InputError if `target` is under the cost of the first network, or over that of all together.
        """
        least, most = self.cost(-torch.inf), self.cost(torch.inf)
        if not (1 - ROUNDING) * least <= target <= (1 + ROUNDING) * most:
            raise InputError(
                f"a mean cost of {describe(target)} is out of reach: this cascade can cost from {describe(least)}, if "
                f"the first network always answers, to {describe(most)}, if all are always asked"
            )
        # The cost grows with the threshold, in steps at the certainties: between two of them nothing changes.
        steps = torch.cat([self.certainties.new_tensor([-1.0]), torch.unique(self.certainties)])
        low, high = 0, len(steps) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.cost(float(steps[middle])) <= target else (low, middle)
        nearest = min((low, high), key=lambda place: abs(self.cost(float(steps[place])) - target))
        # Half-way to the next certainty: no image sits on the threshold, where rounding would decide.
        ahead: list[float] = [*steps.double().tolist(), EVERYBODY]
        return ahead[nearest] if nearest == 0 else (ahead[nearest] + ahead[nearest + 1]) / 2


@dataclass(frozen=True)
class Asked:
    """What every network of a cascade made of every image.

    probabilities:  [N, k, classes] what is known when k networks have been asked
    costs:          [N, k] MACs of each network's own route
    labels:         [N]
    """

    probabilities: Tensor
    costs: Tensor
    labels: Tensor

    @torch.no_grad()
    def doubts(self, cascade: Cascade) -> Doubts:
        """How sure each network would be, by the rule of `cascade`."""
        asking = range(self.costs.shape[1] - 1)
        device = cascade.threshold.device
        certain = [cascade.certainty(number, self.probabilities[:, number].to(device)) for number in asking]
        return Doubts(torch.stack(certain, dim=1).cpu(), self.costs)


@torch.no_grad()
def ask_all(cascade: Cascade, images: Images, costs: CascadeCost, *, batch_size: int = 256) -> Asked:
    """Ask every network of `cascade` about all `images`."""
    device, spec = cascade.threshold.device, cascade.spec
    known, spent, seen = [], [], []
    for batch, labels in images.batches(torch.arange(len(images)), batch_size):
        x = normalize(batch.to(device), spec.mean, spec.std)
        steps: list[Tensor] = [x.new_zeros(len(x), spec.num_classes)]
        paid = []
        for number, (network, table) in enumerate(zip(cascade.networks, costs.stages, strict=True)):
            trace = network(cascade.as_for(network, x))
            steps.append(cascade.combine(number, steps[-1], trace.logits))
            paid.append(table.of_routes(trace.ran.cpu()))
        known.append(torch.stack(steps[1:], dim=1).cpu())
        spent.append(torch.stack(paid, dim=1))
        seen.append(labels)
    return Asked(torch.cat(known), torch.cat(spent), torch.cat(seen))
