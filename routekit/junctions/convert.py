"""`convert`: a pretrained network in, a routed one out, exact until it is trained; `join`: networks that are done."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from routekit.backbones.adapters import adapt
from routekit.backbones.narrow import channel_step
from routekit.backbones.resize import shapes_of
from routekit.backbones.unit import Backbone, ModelSpec, Sink, evaluating, seen_input
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction
from routekit.macs import count
from routekit.network.deciders import IDK, DeciderConfig, RuleDecider
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import PriceConditioning, PriceRange
from routekit.network.program import Head, Step, Stop, Units
from routekit.registry import nearest
from routekit.routing.certainty import certainties
from routekit.routing.router import RouterConfig

# The budget, as a share of the dense cost, where there is none yet.
HALF = 0.5
# How stops between networks that are joined are called, with the number of the network before them.
BETWEEN = "network "


@dataclass(frozen=True)
class Source:
    """One network that a routed one is made of, and the junctions that were attached to it.

    Attributes:
        view: The network.
        junctions: The junctions, with all their settings.
        routers: How the routers of its units were built, if there are any.
        shapes: Of a pruned network, the shapes of its tensors, by name, as they were then.
        dropped: The units that it had lost by then, by name.
    """

    view: Backbone
    junctions: tuple[Junction, ...] = ()
    routers: RouterConfig | None = None
    shapes: dict[str, list[int]] | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blueprint:
    """How a routed network was made: of which networks, and by which rule one defers to the next.

    Attributes:
        sources: The networks, the cheapest first.
        rule: The rule of the stops between them.
        average: Whether the answer is the mean of the probabilities of all networks that ran.
    """

    sources: tuple[Source, ...]
    rule: str = "confidence"
    average: bool = False


def convert(
    model: nn.Module | Backbone,
    junctions: Sequence[Junction] = (),
    *,
    routers: RouterConfig | None = None,
    adaptive_cost: PriceRange | None = None,
    spec: ModelSpec | None = None,
    budget: float = HALF,
) -> RoutedNetwork:
    """Make a routed network of a pretrained one: attach `junctions` to it.

    It answers as the model does, bit for bit in eval mode, until it is trained or a budget is set.

    >>> network = convert(load_backbone("resnet56"), [Cascade(width=0.3)])

    Args:
        model: A network with a view of its units, or a bare module that an adapter knows.
        junctions: What is decided. None: nothing, the dense network.
        routers: How the routers of units are built; by default fully connected, on normalised features.
        adaptive_cost: Prices of computing at which the network is to learn to decide; None for one budget.
        spec: Of a bare module, its input size and classes.
        budget: What "auto" settings fit: the mean cost, as a share of the dense network's.

    Returns:
        The routed network.

    Raises:
        InputError: No adapter knows the model, a junction does not fit it, or junctions do not go together.
    """
    if isinstance(junctions, Junction) or not all(isinstance(junction, Junction) for junction in junctions):
        raise InputError("junctions are a list of configs: [Skip(), Exit(count=2)]")
    view = _own(model if isinstance(model, Backbone) else _adapted(model, spec))
    shapes = shapes_of(view.model) if view.pruned else None
    settled = [junction.sized(budget, view) for junction in sorted(junctions, key=lambda each: each.rank)]
    for junction in settled:
        junction.check(settled)
    draft = Draft(view, routers or RouterConfig(), priced=adaptive_cost is not None)
    for junction in settled:
        if junction.rank > 0:  # routers come before what lies along the way, and draw their weights first
            draft.build_routers()
        junction.attach(draft)
    steps = draft.finish()
    device = next(view.model.parameters()).device
    pricing = None
    if adaptive_cost is not None:
        finds = adaptive_cost.is_open and not any(isinstance(step, Stop) for step in steps)
        columns = 0 if draft.bank is None else len(draft.bank.bias)
        pricing = PriceConditioning(columns, adaptive_cost.sized(_dense_cost(view)), finds=finds)
    config = draft.bank.config if draft.bank is not None else None
    dropped = tuple(unit.name for unit in view.units if unit.dropped)
    blueprint = Blueprint((Source(view, tuple(settled), config, shapes, dropped),))
    # What was added is new; the device is the model's, wherever that is.
    return RoutedNetwork(steps, blueprint=blueprint, pricing=pricing).to(device)


def join(networks: Sequence[RoutedNetwork], *, rule: str = "confidence", average: bool = False) -> RoutedNetwork:
    """Join finished networks, the cheapest first: each answers if it is sure, and else defers to the next.

    An "I don't know" cascade (Wang et al., "IDK Cascades: Fast Deep Learning by Learning not to Overthink", 2018) whose
    networks are taken as they are. At first all images go on to the last one.

    Args:
        networks: The networks; they may decide something themselves.
        rule: How certain an answer is: "confidence", "entropy", or "idk", which is fitted to images.
        average: Whether the answer is the mean of the probabilities of all networks that ran.

    Returns:
        One network, whose passes are those of all.

    Raises:
        InputError: Fewer than two networks, networks that do not take the same images to the same classes, or an
            unknown rule.
    """
    if rule not in (*certainties, IDK):
        raise InputError(f"unknown rule {rule!r}: {nearest(rule, [*certainties, IDK])}")
    if len(networks) < 2:
        raise InputError("a cascade takes at least two networks")
    if any(len(network.blueprint.sources) > 1 for network in networks):
        raise InputError("a cascade is not joined with others again: give all of its networks at once")
    first = networks[0].spec
    steps: list[Step] = []
    sources: list[Source] = []
    for number, network in enumerate(networks):
        other = network.spec
        if (other.num_classes, other.input_size) != (first.num_classes, first.input_size):
            raise InputError(
                f"{first.full_name} takes {first.input_size} to {first.num_classes} classes, {other.full_name} "
                f"{other.input_size} to {other.num_classes}: no cascade can be made of them"
            )
        if number:
            steps.append(Stop(RuleDecider(DeciderConfig(rule=rule)), f"{BETWEEN}{number - 1}"))
        for step in network.steps:
            if isinstance(step, Units):
                step = replace(step, prefix=f"{number}/{step.prefix}")
            elif isinstance(step, Stop):
                step = replace(step, name=f"{number}/{step.name}")
            elif isinstance(step, Head) and number and average and step.combine == "replace":
                step = replace(step, combine="mean")
            steps.append(step)
        sources += network.blueprint.sources
    joined = RoutedNetwork(steps, blueprint=Blueprint(tuple(sources), rule, average))
    joined.stands_alone = all(network.stands_alone for network in networks)
    return joined.to(next(networks[0].parameters()).device).eval()


def decided_by(network: RoutedNetwork, rule: str) -> RoutedNetwork:
    """Return the same network with stops that decide by a rule. All images go on until thresholds are set.

    No price moves a rule.

    Args:
        network: A network that is not joined. The new one shares its modules.
        rule: "confidence" or "entropy".

    Returns:
        The network.
    """
    (source,) = network.blueprint.sources
    junctions = tuple(replace(each, rule=rule) if hasattr(each, "rule") else each for each in source.junctions)
    steps = [
        replace(step, decider=RuleDecider(replace(step.decider.config, rule=rule))) if isinstance(step, Stop) else step
        for step in network.steps
    ]
    blueprint = replace(network.blueprint, sources=(replace(source, junctions=junctions),))
    return RoutedNetwork(steps, blueprint=blueprint).to(next(network.parameters()).device)


def _own(view: Backbone) -> Backbone:
    """The same view with units of its own: what is decided about them is the network's own affair."""
    units = [unit if unit.dropped else replace(unit, sinks=(Sink.RUN,)) for unit in view.units]
    step = channel_step(unit.block for unit in view.units) if view.step is None else view.step
    return replace(view, units=units, step=step)


def _adapted(model: nn.Module, spec: ModelSpec | None) -> Backbone:
    if spec is None:
        raise InputError("convert(model) needs spec=ModelSpec(...): the input size and the number of classes")
    return adapt(model, spec)


def _dense_cost(view: Backbone) -> float:
    """What all of a network costs about which nothing is decided, MACs."""
    with evaluating(view.model), torch.no_grad():
        return float(count(view.model, (seen_input(view),), view.model).flops)
