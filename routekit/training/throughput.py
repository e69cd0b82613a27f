"""Learn equally fast in every section of a network with exits, however few images get there."""

import torch
from torch import Tensor, nn

from routekit.network.network import RoutedNetwork
from routekit.routing.policy import throughput_rate


@torch.no_grad()
def adjust_for_throughput(network: RoutedNetwork, reach: Tensor) -> None:
    """Scale the gradients of each section by its throughput-adjusted rate (section 4.5 of McGill and Perona).

    `reach` [B, exits + 1] is that of the whole batch: of several processes, each has to scale alike. The first section,
    which all images reach, is left as it is; so are the exits' classifiers, which learn from all images, and the
    routers.
    """
    for column, modules in list(zip(reach.unbind(dim=1), sections(network), strict=True))[1:]:
        rate = throughput_rate(column)
        for parameter in (each for module in modules for each in module.parameters()):
            if parameter.grad is not None:
                parameter.grad.mul_(rate)


def squares_of(network: RoutedNetwork) -> Tensor:
    """[exits + 1] the squared weights of each section, with the classifier at its end; the stem is in the first."""
    parts = [[*blocks, each.head] for blocks, each in zip(sections(network), network.exits, strict=False)]
    parts.append(sections(network)[-1])
    inside = [[p for part in section for p in part.parameters()] for section in parts]
    # What belongs to no block is the stem's and the last classifier's, and small: everybody pays for it.
    known = {id(p) for section in inside for p in section}
    inside[0] += [p for p in network.backbone.parameters() if id(p) not in known]
    return torch.stack([torch.stack([p.square().sum() for p in section if p.ndim > 1]).sum() for section in inside])


def sections(network: RoutedNetwork) -> list[list[nn.Module]]:
    """The blocks of each section between exits."""
    found: list[list[nn.Module]] = [[]]
    for unit in network.view.units:
        found[-1].append(unit.block)
        if network.exit_after(unit) is not None:
            found.append([])
    return found
