"""The threshold of a cascade, set on validation images so that their mean cost is the budget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.cascade import CascadeCost
from routekit.cost.macs import describe
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.network.cascade import Cascade

# No certainty is larger.
EVERYBODY = 1.0


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
        if not least <= target <= most:
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


@torch.no_grad()
def ask_all(cascade: Cascade, images: Images, costs: CascadeCost, *, batch_size: int = 256) -> Doubts:
    """Ask every network of `cascade` about all `images`."""
    device, spec = cascade.threshold.device, cascade.spec
    asked = [place.start - 1 for place in cascade.places[1:]]
    certainties, spent = [], []
    for batch, _ in images.batches(torch.arange(len(images)), batch_size):
        trace = cascade(normalize(batch.to(device), spec.mean, spec.std), threshold=EVERYBODY)
        certainties.append(EVERYBODY - trace.margins[:, asked].cpu())
        own = [
            model.of_routes(trace.routes[:, place.start : place.stop].cpu())
            for model, place in zip(costs.stages, costs.places, strict=True)
        ]
        spent.append(torch.stack(own, dim=1))
    return Doubts(torch.cat(certainties), torch.cat(spent))
