"""`convert`: a pretrained network in, the same network with routers out, exact until it is trained."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from routekit.backbones.adapters import adapt
from routekit.backbones.narrow import channel_step
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit, Sink, evaluating
from routekit.errors import InputError
from routekit.macs import count
from routekit.network.branches import BranchConfig, give_branches
from routekit.network.dial import Dial, DialRange
from routekit.network.exits import END, STEM, Exit, ExitConfig, places
from routekit.network.heads import OWN, Place
from routekit.network.network import RoutedNetwork
from routekit.network.paths import ForkRouters, PathExit, forks, grow, paths_behind
from routekit.routing.router import FixedRoute, JunctionShape, RouterBank, RouterConfig, build_bank, pool

# The budget, as a share of the dense cost, where there is none yet.
HALF = 0.5


def convert(
    model: nn.Module | Backbone,
    config: RouterConfig | FixedRoute | None = None,
    *,
    exits: Sequence[ExitConfig] = (),
    branches: BranchConfig | None = None,
    skips: bool = True,
    dial: DialRange | None = None,
    spec: ModelSpec | None = None,
) -> RoutedNetwork:
    """Give every skippable unit of `model` a router, and the model the exits that `exits` asks for.

    The routers start fully open, so in eval mode the network's logits equal the model's bit for bit. `config` is a
    RouterConfig for learned routers (default: fully connected, on normalised features), or a FixedRoute, the same route
    for every image. With `branches` a unit has more ways on, or the network becomes a tree. Without `skips` none is
    skipped: what computes least is the default, and without branches exits alone decide. With a `dial`, it is to learn
    to decide at every price of computing in that range; where it is open, and units decide alone, training finds it.
    What is to be as narrow as a budget asks ("auto") fits half of the dense cost. A bare module needs `spec` (its input
    size and classes).
    Raises InputError for a model that no adapter knows, exits after units that do not exist, units that have no
    narrow form, or a tree without exits that learn.
    """
    view = model if isinstance(model, Backbone) else _adapted(model, spec)
    # What is decided about its units is the network's own affair: the caller may convert the same model otherwise.
    both = (Sink.RUN, Sink.SKIP)
    view = replace(
        view, units=[replace(unit, sinks=both if skips and unit.skippable else both[:1]) for unit in view.units]
    )
    if view.step is None:
        view.step = channel_step(unit.block for unit in view.units)
    if branches is not None:
        branches = branches.sized(HALF)
        if branches.forks:
            return _tree(view, config, exits, branches, skips=skips, dial=dial)
        give_branches(view, branches, skips=skips)
    if not (exits or any(unit.decides for unit in view.units) or isinstance(config, FixedRoute)):
        raise InputError(f"{view.spec.full_name} has no unit that can be skipped: add --junctions exit")
    if isinstance(config, FixedRoute):
        bank: RouterBank = config
    else:
        bank = build_bank(junction_shapes(view), config or RouterConfig(), dial=dial is not None)
    # A learned bank is new; the device is the model's, wherever that is.
    device = next(view.model.parameters()).device
    found = _exits(view, exits, dial=dial is not None)
    knob = None
    if dial is not None:
        finds = dial.is_open and not found
        knob = Dial(len(bank.offset), dial.sized(_dense_cost(view)), finds=finds).to(device)
    return RoutedNetwork(view, bank.to(device), [each.to(device) for each in found], knob, branches)


def look_again(network: RoutedNetwork, rule: str) -> None:
    """Let `network` look again, at images mirrored, where its own answer is not certain enough by `rule`.

    At first, that is so for all that get to its end. Raises InputError for a tree, whose paths do not end together.
    """
    if network.is_tree:
        raise InputError("a tree of paths does not look again: --junctions again joins what has one end")
    view = network.view
    leaving = Exit(_places(view)[-1], ExitConfig(at=END, head=OWN, rule=rule))
    network.add_exit(leaving.to(next(view.model.parameters()).device))


def dense(model: nn.Module | Backbone, *, spec: ModelSpec | None = None) -> RoutedNetwork:
    """The network itself, as a routed one whose only route runs everything."""
    view = model if isinstance(model, Backbone) else _adapted(model, spec)
    return convert(view, FixedRoute([True] * sum(unit.skippable for unit in view.units)))


def _adapted(model: nn.Module, spec: ModelSpec | None) -> Backbone:
    if spec is None:
        raise InputError("convert(model) needs spec=ModelSpec(...): the input size and the number of classes")
    return adapt(model, spec)


def _tree(
    view: Backbone,
    config: RouterConfig | FixedRoute | None,
    exits: Sequence[ExitConfig],
    branches: BranchConfig,
    *,
    skips: bool,
    dial: DialRange | None,
) -> RoutedNetwork:
    """Make a tree of `view`, with the exits of all its paths."""
    if skips or dial is not None or isinstance(config, FixedRoute) or (config is not None and config.kind != "fc"):
        raise InputError(
            "a tree (branches.forks) takes exits alone: --junctions branch,exit (skips=False), no --adaptive-cost, and "
            "routers.kind fc"
        )
    if not exits or any(each.rule != "learned" or each.head == "narrow" for each in exits):
        raise InputError(
            "a tree (branches.forks) needs exits that learn, with heads conv or linear: --junctions branch,exit"
        )
    if view.pruned:
        raise InputError(f"{view.spec.full_name} was pruned: a tree (branches.forks) grows from a whole network")
    device = next(view.model.parameters()).device
    at = forks(view, branches.forks)
    paths = paths_behind(view, at)
    before = dict(zip((unit.name for unit in view.units), _places(view), strict=False))
    found = [
        PathExit(place, each, paths[place.after]) if paths.get(place.after, 1) > 1 else Exit(place, each)
        for place, each in _exit_places(view, exits)
    ]
    if not found:
        raise InputError(f"no exit of {view.spec.full_name} lies where --exits says: a tree (branches.forks) needs one")
    bank = ForkRouters([before[name] for name in at], config or RouterConfig())
    grow(view, at, branches.spread)
    return RoutedNetwork(view, bank.to(device), [each.to(device) for each in found], branches=branches)


def _exits(view: Backbone, configs: Sequence[ExitConfig], *, dial: bool) -> list[Exit]:
    """The exits of all `configs`, in order."""
    return [Exit(place, config, dial=dial) for place, config in _exit_places(view, configs)]


def _exit_places(view: Backbone, configs: Sequence[ExitConfig]) -> list[tuple[Place, ExitConfig]]:
    """Where the exits of all `configs` lie, in order; where several want one place after a unit, the first has it."""
    wanted: dict[str, ExitConfig] = {}
    before: list[ResidualUnit] = []
    for config in configs:
        for place in places(view, config, example_input(view)):
            name = f"{STEM}.{len(before)}" if place == STEM and before else place
            wanted.setdefault(name, config)
            if place == STEM:
                before.append(ResidualUnit(name, nn.Identity(), view.units[0].stage, skippable=False))
    view.units[:0] = before
    return [(place, wanted[place.after]) for place in _places(view)[1:] if place.after in wanted]


@torch.no_grad()
def example_input(view: Backbone) -> Tensor:
    """One blank image [1, C, H, W], on the model's device and in its dtype."""
    parameter = next(view.model.parameters())
    return torch.zeros(1, *view.spec.input_size, device=parameter.device, dtype=parameter.dtype)


def junction_shapes(view: Backbone) -> list[JunctionShape]:
    """What each junction's router will see."""
    before = zip(view.units, _places(view), strict=False)
    return [JunctionShape(place.channels, unit.stage, len(unit.sinks)) for unit, place in before if unit.decides]


@torch.no_grad()
def _places(view: Backbone) -> list[Place]:
    """Run one blank image through the network: what lies before the first unit, and after each."""
    with evaluating(view.model):
        x, summarize = view.stem(example_input(view)), view.summary or pool
        found = [Place(view, STEM, x.shape[1], summarize(x).shape[1])]
        for unit in view.units:
            x = unit.run(x)
            found.append(Place(view, unit.name, x.shape[1], summarize(x).shape[1]))
    return found


def _dense_cost(view: Backbone) -> float:
    """What all of a network costs that nothing is decided in, MACs."""

    def whole(x: Tensor) -> Tensor:
        x = view.stem(x)
        for unit in view.units:
            x = unit.run(x)
        return view.head(x)

    with evaluating(view.model):
        flops = count(whole, (example_input(view),), view.model).flops
    return float(flops)
