"""A routed toy, and what an exported form of it has to give."""

from dataclasses import replace

import torch

from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig
from routekit.runtime.runtime import Runtime
from tests.toy import open_to_images, toy_view

ABOUT = {"classes": ["red", "green", "blue"]}


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def as_of_a_library(network: RoutedNetwork) -> RoutedNetwork:
    """Let blocks that look alike be exported once for all tests; those of a user's own network are not."""
    for form in network.forms:
        form.spec = replace(form.spec, source="timm")
    return network


def routed(bias: float = 0.0, kind: str = "fc", channels: int = 4) -> RoutedNetwork:
    network = convert(toy_view(channels=channels), [Skip()], routers=RouterConfig(kind=kind, hidden=8)).eval()
    open_to_images(network)
    with torch.no_grad():  # each junction is undecided between these images
        x = network.view.stem(images(32))
        for index, unit in enumerate(network.view.units):
            asked, _ = network.routers.survey(range(index, index + 1), x)
            network.routers.bias[index] = -asked.median() + 0.01  # no ties
            x = unit.run(x)
    network.routers.bias += bias
    return as_of_a_library(network)


def same(runtime: Runtime, network: RoutedNetwork, counts: tuple[int, ...] = (1, 2, 7)) -> None:
    for count in counts:
        with torch.no_grad():
            want = network(images(count), execution=masked)
        got = runtime(images(count))
        assert torch.equal(got.routes, want.routes)
        torch.testing.assert_close(got.logits, want.logits, rtol=1e-4, atol=1e-5)
