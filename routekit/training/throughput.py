"""Learn equally fast in every part of a network with exits and forks, however few images get there."""

import torch
from torch import Tensor, nn

from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, on_paths
from routekit.network.program import Classify, Stop, Units
from routekit.routing.policy import throughput_rate


@torch.no_grad()
def adjust_for_throughput(network: RoutedNetwork, reach: Tensor) -> None:
    """Scale the gradients of each part by its throughput-adjusted rate (section 4.5 of McGill and Perona).

    `reach` [B, parts] is that of the whole batch (`reach_of`): of several processes, each has to scale alike. The first
    part, which all images reach, is left as it is; so are the exits' classifiers, which learn from all images, and the
    routers. It is for gradients that are as large as the share of images that get there, as the policy's are.
    """
    for column, modules in list(zip(reach.unbind(dim=1), parts(network), strict=True))[1:]:
        rate = throughput_rate(column)
        for parameter in (each for module in modules for each in module.parameters()):
            if parameter.grad is not None:
                parameter.grad.mul_(rate)


def squares_of(network: RoutedNetwork) -> Tensor:
    """[parts] the squared weights of each part, with the classifier at its end; the stem is in the first."""
    inside = [[p for module in modules for p in module.parameters()] for modules in parts(network, classifiers=True)]
    # What belongs to no block is the stem's and the last classifier's, and small: everybody pays for it.
    known = {id(p) for part in inside for p in part}
    inside[0] += [p for p in network.backbone.parameters() if id(p) not in known]
    nothing = inside[0][0].new_zeros(())
    return torch.stack([sum((p.square().sum() for p in part if p.ndim > 1), nothing) for part in inside])


def parts(network: RoutedNetwork, *, classifiers: bool = False) -> list[list[nn.Module]]:
    """List the blocks of each part of a network, in the order of `reach_of`; with the exits' classifiers or not."""
    paths = 1
    found: list[list[nn.Module]] = [[]]
    ahead: list[nn.Module] = []
    forks = network.layout.forks
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
            ahead = list(step.head.each) if isinstance(step.head, Paths) else [step.head]
        elif isinstance(step, Stop):
            for part, head in zip(found[-paths:], ahead, strict=False):
                part.append(head)
            found, ahead = found + [[] for _ in range(paths)], []
    return found
