"""The walk over a chain of units, each run in full: where everything that measures or traces a network begins."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit, seen_input


def walk(units: Sequence[ResidualUnit], x: Tensor) -> Iterator[tuple[ResidualUnit, Tensor, Tensor]]:
    """Run units in a row.

    Args:
        units: The units.
        x: The features that the first one reads, `[B, C, H, W]`.

    Yields:
        Each unit, the features that it reads, and those that it gives.
    """
    for unit in units:
        after = unit.run(x)
        yield unit, x, after
        x = after


def run_all(units: Sequence[ResidualUnit], x: Tensor) -> Tensor:
    """Run units in a row.

    Args:
        units: The units.
        x: The features that the first one reads, `[B, C, H, W]`.

    Returns:
        The features that the last one gives.
    """
    for _, _, after in walk(units, x):
        x = after
    return x


def walk_through(view: Backbone) -> Iterator[tuple[ResidualUnit, Tensor, Tensor]]:
    """Walk over all units of a network with one blank image; as `walk`."""
    yield from walk(view.units, view.stem(seen_input(view)))


@contextmanager
def calls(model: nn.Module) -> Iterator[set[nn.Module]]:
    """Collect the modules inside `model` that are called as long as this context lasts."""
    called: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda part, _: called.add(part)) for part in model.modules()]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()
