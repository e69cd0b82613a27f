"""Forms of a network: narrow, shallow. A form is a network of its own, which may share weights with the whole one."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from routekit.backbones.narrow import narrow, stand_alone
from routekit.backbones.unit import Backbone, ResidualUnit, Sink, evaluating
from routekit.backbones.walk import calls, walk_through

# The cost of a network whose every unit is narrow, as a share of the budget, where the width is "auto". The rest of the
# budget is for the images that need more.
NARROW = 0.6


def narrow_for(budget: float) -> float:
    """Choose the width of a narrow form.

    The cost of a narrow unit is its share of the inner channels, or less. Budgets that no network can meet have a
    narrow form, too, by which to say so.

    Args:
        budget: The mean cost, as a share of the dense network's.

    Returns:
        The share of the inner channels.
    """
    return max(round(NARROW * min(budget, 1.0), 2), 0.01)


def narrow_form(view: Backbone, width: float, depth: float = 1.0, *, own: bool) -> Backbone:
    """Make a narrow and perhaps shallow form of a network.

    It has the stem of `view`. Its convolutions are the network's own (`backbones/narrow.py`) or, with `own`, begin as
    they are. Its batch norms and its classifier are not shared in any case.

    Args:
        view: The whole network.
        width: The share of its inner channels that each unit keeps.
        depth: The share of each stage's units that it has: see `shallow`.
        own: Whether it has weights of its own.

    Returns:
        The form.

    Raises:
        InputError: A block has no narrow form.
    """
    twin = copy.deepcopy(view)
    kept = shallow(twin.computing, depth)
    modules, whole = dict(twin.model.named_modules()), {unit.name: unit for unit in view.units}
    for unit in twin.computing:
        if all(unit is not each for each in kept):
            unit.block = nn.Identity()
        elif unit.skippable or unit.branchable:  # what lies between residual blocks stays as wide as it is
            unit.block = narrow(whole[unit.name].block, width, twin.step or 1)
        if unit.name in modules:
            twin.model.set_submodule(unit.name, unit.block)
    if own:
        stand_alone(twin.model)
    units = [replace(unit, shortcut=None, skippable=False, sinks=(Sink.RUN,)) for unit in kept]
    # The stem, and the images that it wants, are the network's.
    form = replace(view, model=twin.model, units=units, head=twin.head, classifier="", notes=[])

    def answer() -> None:
        *_, (_, _, x) = walk_through(form)
        form.head(x)

    keep_called(form.model, answer)
    return form


@torch.no_grad()
def keep_called(model: nn.Module, run: Callable[[], object]) -> None:
    """Replace what is not called by `nn.Identity`. What has no tensors stays.

    Args:
        model: It is changed in place.
        run: Calls what is to stay.
    """
    with evaluating(model), calls(model) as called:
        run()
    parts = [(f"{name}.", module) for name, module in model.named_modules() if name]
    done = [name for name, module in parts if module in called]
    for name, module in parts:
        owns = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if owns and not name.startswith(tuple(done)):
            model.set_submodule(name[:-1], nn.Identity())
            done.append(name)


def shallow(units: Sequence[ResidualUnit], depth: float) -> list[ResidualUnit]:
    """Choose some units of each stage: its first one, which makes the stage's shape, and others, evenly spread.

    Args:
        units: All units, in order.
        depth: The share of each stage's units.

    Returns:
        The units chosen, in order. They fit together: those between them keep the shape of the features.
    """
    kept: list[ResidualUnit] = []
    for _, group in itertools.groupby(units, key=lambda unit: unit.stage):
        stage = list(group)
        count = max(1, round(depth * len(stage)))
        kept += [stage[place * len(stage) // count] for place in range(count)]
    return kept
