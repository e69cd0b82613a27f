"""Learn equally fast in every part of a network with exits and forks, however few images reach it."""

import torch
from torch import Tensor, nn

from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, on_paths
from routekit.network.program import Classify, Stop, Units
from routekit.routing.policy import throughput_rate


@torch.no_grad()
def adjust_for_throughput(network: RoutedNetwork, reach: Tensor) -> None:
    """Scale the gradients of each part by alpha, its throughput-adjusted rate (section 4.5 of McGill and Perona).

    It is for gradients that are in proportion to the share of images that reach a part, as the policy's are. All images
    reach the first part, so its gradients stay. So do those of the exits' classifiers, which learn from all images, and
    those of routers.

    Args:
        network: Its gradients change.
        reach: `[B, parts]`, of the batches of all processes (`reach_of`).
    """
    for column, modules in list(zip(reach.unbind(dim=1), parts(network), strict=True))[1:]:
        rate = throughput_rate(column)
        for parameter in nn.ModuleList(modules).parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(rate)


def squares_of(network: RoutedNetwork) -> Tensor:
    """Return the sum of the squared weights of each part, `[parts]`, with the classifier at its end.

    What lies in no block is the stem and the last classifier. They are small, and count to the first part.
    """
    inside = [list(nn.ModuleList(modules).parameters()) for modules in parts(network, classifiers=True)]
    in_blocks = {id(p) for part in inside for p in part}
    inside[0] += [p for p in network.backbone.parameters() if id(p) not in in_blocks]
    nothing = inside[0][0].new_zeros(())
    return torch.stack([sum((p.square().sum() for p in part if p.ndim > 1), nothing) for part in inside])


def parts(network: RoutedNetwork, *, classifiers: bool = False) -> list[list[nn.Module]]:
    """List the blocks of each part of a network.

    Args:
        network: The network.
        classifiers: Whether the classifier of the exit at its end belongs to a part.

    Returns:
        The modules of each part, in the order of `reach_of`.
    """
    paths, forks = 1, network.layout.forks
    found: list[list[nn.Module]] = [[]]
    for step in network.steps:
        if isinstance(step, Units):
            for unit in step.units:
                blocks = on_paths(unit)
                if forks and unit.decides:
                    paths = len(blocks)
                    found += [[] for _ in blocks]
                for part, block in zip(found[-paths:], blocks, strict=True):
                    part.append(block)
        elif isinstance(step, Classify) and classifiers:
            heads = step.head.each if isinstance(step.head, Paths) else [step.head]
            for part, head in zip(found[-paths:], heads, strict=True):
                part.append(head)
        elif isinstance(step, Stop):
            found += [[] for _ in range(paths)]
    return found
