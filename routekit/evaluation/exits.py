"""What the stops of a network do: who answers there, and how right they are."""

from dataclasses import dataclass

import torch

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import evaluate
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class ExitStatistics:
    """One of those who may answer an image (`RoutedNetwork.answerers`).

    Attributes:
        after: What lies before the stop; "end" or "again" for the last answer.
        stops: The share of the images that it answers.
        accuracy: The accuracy on those; None if there are none.
        alone: Its accuracy on all images, as if it answered each.
        answered: How many images of each class it answers.
    """

    after: str
    stops: float
    accuracy: float | None
    alone: float
    answered: tuple[int, ...]


@torch.no_grad()
def measure_exits(network: RoutedNetwork, images: Images, costs: CostTable) -> list[ExitStatistics]:
    """Ask everyone who may answer about all images, in eval mode; nothing for a network without stops."""
    if not network.stops:
        return []
    found = evaluate(network, images, costs, everywhere=True)
    assert found.leaves is not None
    correct = (found.leaves.argmax(dim=2) == found.labels.unsqueeze(1)).double()
    # The image is answered by the last one that it gets to.
    answered = found.routes[:, list(network.layout.stops)].sum(dim=1)
    return [
        ExitStatistics(
            after=after,
            stops=float((answered == place).double().mean()),
            accuracy=float(correct[answered == place, place].mean()) if (answered == place).any() else None,
            alone=float(correct[:, place].mean()),
            answered=tuple(
                torch.bincount(found.labels[answered == place], minlength=network.spec.num_classes).tolist()
            ),
        )
        for place, after in enumerate(network.answerers)
    ]
