"""What the exits of a network do: who stops there, and how right they are."""

from dataclasses import dataclass

import torch

from routekit.backbones.unit import evaluating
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.network.executor import masked
from routekit.network.network import RoutedNetwork


@dataclass(frozen=True)
class ExitStatistics:
    """One classifier of a network with exits (`answerers`).

    stops:     share of the images that it answers
    accuracy:  of those; None if there are none
    alone:     its accuracy on all images, as if it answered each
    answered:  how many images of each class it answers
    """

    after: str
    stops: float
    accuracy: float | None
    alone: float
    answered: tuple[int, ...]


@torch.no_grad()
def measure_exits(network: RoutedNetwork, images: Images, *, batch_size: int = 256) -> list[ExitStatistics]:
    """Ask every classifier of `network` about all images, in eval mode; none for a network without exits."""
    if not network.exits:
        return []
    with evaluating(network):
        device, spec = next(network.parameters()).device, network.spec
        right, answers, seen = [], [], []
        for batch, labels in images.batches(torch.arange(len(images)), batch_size):
            trace = network(normalize(batch.to(device), spec.mean, spec.std), execution=masked)
            right.append(torch.stack([leaf.argmax(dim=1).cpu() == labels for leaf in trace.leaves], dim=1))
            # The image is answered by the last classifier that it gets to.
            seen.append(labels)
            answers.append(trace.routes[:, -len(network.exits) :].cpu().sum(dim=1))
    correct, answered, of = torch.cat(right).double(), torch.cat(answers), torch.cat(seen)
    found = []
    for place, after in enumerate(network.answerers):
        here = answered == place
        found.append(
            ExitStatistics(
                after=after,
                stops=float(here.double().mean()),
                accuracy=float(correct[here, place].mean()) if here.any() else None,
                alone=float(correct[:, place].mean()),
                answered=tuple(torch.bincount(of[here], minlength=network.spec.num_classes).tolist()),
            )
        )
    return found
