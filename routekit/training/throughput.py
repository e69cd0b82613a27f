"""Learn equally fast in every layer of a network with exits and forks, however few images reach it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from routekit.junctions.tree import ForkRouters
from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, on_paths
from routekit.network.program import Classify, Head, Stop, Units
from routekit.routing.decision import RouteTrace
from routekit.routing.policy import Choice, reach_of, shares, throughput_rate


@dataclass(frozen=True)
class Layers:
    """What learns in one part of a network, or in one classifier.

    Attributes:
        computing: The parameters that compute.
        deciding: Those of the routers that all images of a part meet.
    """

    computing: list[nn.Parameter] = field(default_factory=list)
    deciding: list[nn.Parameter] = field(default_factory=list)


@torch.no_grad()
def adjust_for_throughput(layers: Sequence[Layers], reach: Tensor, *, deciding_only: bool = False) -> None:
    """Scale the gradients of all layers by alpha, their throughput-adjusted rates (section 4.5 of McGill and Perona).

    It is for gradients that are in proportion to the share of images that reach a layer, as the policy's are. As in the
    authors' code (multipath-nn, `net_types.py`), that is every layer: blocks, routers, and classifiers, which only
    images reach that stop there.

    Args:
        layers: What learns; the gradients change.
        reach: `[B, layers]`, of the batches of all processes (`reach_of`).
        deciding_only: Whether only routers are adjusted: where other terms teach the rest from all images.
    """
    for column, each in zip(reach.unbind(dim=1), layers, strict=True):
        rate = throughput_rate(column)
        for parameter in each.deciding if deciding_only else (*each.computing, *each.deciding):
            if parameter.grad is not None:
                parameter.grad.mul_(rate)


def follow_throughput(
    layers: Sequence[Layers], trace: RouteTrace, choice: Choice, accelerator: Accelerator, *, taught: bool
) -> None:
    """Adjust all layers by the batch of all processes (`adjust_for_throughput`).

    Args:
        layers: What learns; the gradients change.
        trace: Of the images of this process.
        choice: The training routing policy.
        accelerator: The processes.
        taught: Whether other terms teach what computes from all images. That needs no adjustment; in a tree it does,
            because each path has its share.
    """
    layout = trace.layout
    with torch.no_grad():
        reach = accelerator.gather(reach_of(trace, choice))
    reach = reach.clamp_min(shares(layout).to(reach)) if taught else reach
    adjust_for_throughput(layers, reach, deciding_only=taught and not layout.forks)


def squares_of(layers: Sequence[Layers]) -> Tensor:
    """Return the sum of the squared weights, not biases, of all layers: `[layers]`."""
    nothing = layers[0].computing[0].new_zeros(())
    return torch.stack(
        [sum((p.square().sum() for p in (*each.computing, *each.deciding) if p.ndim > 1), nothing) for each in layers]
    )


def layers_of(network: RoutedNetwork) -> list[Layers]:
    """List what learns, in the order of `routing.policy.reach_of`: the parts of a network, then its classifiers.

    What belongs to no other one, such as the stem, belongs to the first part.
    """
    paths, forks = 1, network.layout.forks
    parts, answers = [Layers()], list[Layers]()
    for step in network.steps:
        if isinstance(step, Units):
            fork = step.first
            for unit in step.units:
                blocks = on_paths(unit)
                if forks and unit.decides:
                    assert isinstance(step.routers, ForkRouters)
                    for part, router in zip(parts[-paths:], step.routers.each(fork), strict=True):
                        part.deciding.extend(router.parameters())
                    fork, paths = fork + 1, len(blocks)
                    parts += [Layers() for _ in blocks]
                for part, block in zip(parts[-paths:], blocks, strict=True):
                    part.computing.extend(block.parameters())
        elif isinstance(step, Classify):
            heads = step.head.each if isinstance(step.head, Paths) else [step.head]
            answers += [Layers(list(head.parameters())) for head in heads]
        elif isinstance(step, Stop):
            for part, decider in zip(parts[-paths:], step.decider.each, strict=True):
                part.deciding.extend(decider.parameters())
            parts += [Layers() for _ in range(paths)]
        elif isinstance(step, Head):
            answers += [Layers(list(head.parameters())) for head in _last_heads(step)]
    known = {id(p) for each in (*parts, *answers) for p in each.computing}
    parts[0].computing.extend(p for p in network.backbone.parameters() if id(p) not in known)
    return [*parts, *answers]


def _last_heads(step: Head) -> list[nn.Module]:
    """What classifies at the end of each path."""
    form = step.form
    first = form.model.get_submodule(form.classifier) if form.classifier else nn.Identity()
    heads = getattr(form.head, "__self__", None)
    # The first path is the network from which the tree grew.
    return [first, *heads.each[1:]] if isinstance(heads, Paths) else [first]
