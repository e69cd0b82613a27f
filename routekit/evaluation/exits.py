"""What the stops of a network do: how many images are answered there, and how many of them right."""

from dataclasses import dataclass

import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import evaluate
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class ExitStatistics:
    """One of the classifiers that may answer an image (`RoutedNetwork.answerers`).

    Attributes:
        after: What lies before the stop; "end" or "again" for the last answer.
        stops: The share of the images that it answers.
        accuracy: Its accuracy on those; None if there are none.
        alone: Its accuracy on all images.
        answered: The number of images of each class that it answers.
    """

    after: str
    stops: float
    accuracy: float | None
    alone: float
    answered: tuple[int, ...]


@torch.no_grad()
def measure_exits(network: RoutedNetwork, images: Images, costs: CostTable) -> list[ExitStatistics]:
    """Let all classifiers answer all images, in eval mode.

    Args:
        network: The network.
        images: The images.
        costs: The cost table.

    Returns:
        The statistics of each classifier, in order. None of them for a network without stops.
    """
    if not network.stops:
        return []
    found = evaluate(network, images, costs, everywhere=True)
    assert found.leaves is not None
    # An image is answered by the last classifier that it reaches.
    answered = found.routes[:, list(network.layout.stops)].sum(dim=1)
    return exit_statistics(found.leaves.argmax(dim=2), answered, found.labels, network)


def exit_statistics(classes: Tensor, answered: Tensor, labels: Tensor, network: RoutedNetwork) -> list[ExitStatistics]:
    """Count what each classifier answers.

    Args:
        classes: `[N, classifiers]`, what each answers for each image.
        answered: `[N]`, which classifier's answer counts.
        labels: `[N]`.
        network: The network.

    Returns:
        The statistics of each classifier, in order.
    """
    correct = (classes == labels.unsqueeze(1)).double()
    statistics = []
    for place, after in enumerate(network.answerers):
        here = answered == place
        statistics.append(
            ExitStatistics(
                after=after,
                stops=float(here.double().mean()),
                accuracy=float(correct[here, place].mean()) if here.any() else None,
                alone=float(correct[:, place].mean()),
                answered=tuple(labels[here].bincount(minlength=network.spec.num_classes).tolist()),
            )
        )
    return statistics
