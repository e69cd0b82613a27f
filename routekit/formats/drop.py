"""Take from a network what its images do not decide: units that none runs, routers of units that all run."""

from collections.abc import Sequence

from routekit.backbones.drop import drop_unit
from routekit.backbones.unit import ResidualUnit, Sink
from routekit.network.network import RoutedNetwork
from routekit.network.program import Units


def reduce(network: RoutedNetwork, dropped: Sequence[str], settled: Sequence[str]) -> tuple[list[str], list[str]]:
    """Drop some units of `network` for good, and let others run for all images.

    Routers that need each other stay. The result depends on the architecture and the names alone, so a loader can
    repeat it before it reads the tensors.

    Args:
        network: It is changed in place.
        dropped: The names of units, as the columns of routes have them.
        settled: Likewise, of the units that run for all images.

    Returns:
        The units that were dropped, and those that run for all images from now on.
    """
    gone: list[str] = []
    always: list[str] = []
    for step in [step for step in network.steps if isinstance(step, Units)]:
        for unit in step.units:
            name = f"{step.prefix}{unit.name}"
            wanted = unit.decides if name in settled else name in dropped
            if unit.dropped or not wanted or (unit.decides and not _forget(network, step, unit)):
                continue
            if name in settled:
                unit.sinks = (Sink.RUN,)
                always.append(name)
            else:
                drop_unit(unit)
                gone.append(name)
        if step.routers is not None and not len(step.routers):
            step.routers = None
    network.register()
    return gone, always


def _forget(network: RoutedNetwork, step: Units, unit: ResidualUnit) -> bool:
    """Remove the junction of `unit`; False if the routers need it. The caller sets the sink that remains."""
    assert step.routers is not None
    index = step.first + step.deciding.index(unit)
    if not step.routers.forget(index):
        return False
    if network.pricing is not None:
        network.pricing.forget(step.routers.columns(range(index, index + 1)))
    for other in network.steps:
        if isinstance(other, Units) and other.routers is step.routers and other.first > index:
            other.first -= 1
    return True
