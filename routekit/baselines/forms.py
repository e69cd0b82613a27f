"""Forms: static networks with weights of their own, made of another network to cost a given part of it.

A ladder of them, each cheaper than the next, is what a cascade is joined of. Not every network has every kind of form:
`kind_for` finds one that it has.
"""

import copy
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from routekit.backbones.unit import Backbone, evaluating, seen_input
from routekit.baselines.depth import orders, reach_of_depth, static_depth
from routekit.baselines.pruning import prune, prunings, reach_of_pruning
from routekit.cost.target import OutOfReachError, Reach
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.macs import count, describe
from routekit.network.network import RoutedNetwork
from routekit.registry import nearest

# The kinds that `kind_for` tries, the one whose forms are most accurate first.
KINDS = ("depgraph", "l1", "distributedk", "resolution")
RESOLUTION = "resolution"
# Images are seen in no fewer pixels, or in half of theirs, if that is less.
SMALLEST = 32


def form_of(view: Backbone, kind: str, cost: float, seed: int = 0) -> RoutedNetwork:
    """Make a form of a network.

    Args:
        view: The network. It stays as it is.
        kind: How the form is made: a name in `prunings` or in `orders`, or "resolution", for the same network that sees
            images at a lower one.
        cost: What it costs, MACs. A pruned form comes as near to it as the method can. Others cost no more than that.
        seed: For a kind that draws at random.

    Returns:
        A network that decides nothing, in eval mode, with weights of its own.

    Raises:
        InputError: The kind is unknown, or the network has no such form.
        OutOfReachError: No form of this kind costs so little, or so much.
    """
    if kind in prunings:
        form = prune(view, kind, cost, seed)
    elif kind == RESOLUTION:
        form = _at_resolution(view, cost)
    else:
        reach_of_form(view, kind).check(cost)
        form = static_depth(kind, view, cost, seed, above=False)
    return convert(form).eval()


def reach_of_form(view: Backbone, kind: str) -> Reach:
    """Say what forms of one kind can cost.

    Args:
        view: The network. It stays as it is.
        kind: As in `form_of`.

    Returns:
        From what to what, in MACs.

    Raises:
        InputError: The kind is unknown, or the network has no such form.
    """
    if kind in prunings:
        return reach_of_pruning(view, kind)
    if kind in orders:
        return reach_of_depth(view)
    if kind == RESOLUTION:
        whole = _cost(view, view.resolution)
        return Reach(_cost(view, _least(view, _resolutions(view))), whole, whole, "at the lowest resolution")
    raise InputError(f"unknown kind of form {kind!r}: {nearest(kind, {*prunings, *orders, RESOLUTION})}")


def kind_for(
    view: Backbone,
    cost: float,
    kinds: Sequence[str] = KINDS,
    reach_of: Callable[[Backbone, str], Reach] = reach_of_form,
) -> str:
    """Choose the kind of a form.

    Args:
        view: The network.
        cost: What the form is to cost, MACs.
        kinds: The kinds to choose from, the preferred one first.
        reach_of: What forms of a kind can cost; finding that takes seconds, which a caller may save.

    Returns:
        The first kind of which the network has a form of this cost.

    Raises:
        OutOfReachError: There is none; it says what the least is.
        InputError: The network has no form of any of the kinds.
    """
    reaches: list[Reach] = []
    for kind in kinds:
        try:
            reaches.append(reach_of(view, kind))
            reaches[-1].check(cost)
        except OutOfReachError:
            continue
        except InputError as error:
            fault = error
            continue
        return kind
    if not reaches:
        raise fault
    least = min(reach.least for reach in reaches)
    limit = f"at least {describe(least)} ({100 * least / reaches[0].whole:.1f}%) is left"
    raise OutOfReachError(f"no form of {view.spec.full_name} costs {describe(cost)}: {limit}", limit)


def _at_resolution(view: Backbone, cost: float) -> Backbone:
    """Copy a network so that it sees images at the highest resolution at which it costs no more than `cost`, MACs."""
    reach_of_form(view, RESOLUTION).check(cost)
    if cost >= _cost(view, view.resolution):
        return copy.deepcopy(view)
    sizes = _resolutions(view)
    fitting = bisect_right(sizes, cost, lo=sizes.index(_least(view, sizes)), key=lambda size: _cost(view, size))
    return replace(copy.deepcopy(view), resolution=sizes[fitting - 1])


def _resolutions(view: Backbone) -> list[tuple[int, int]]:
    """List the heights and widths at which a network may see images, the lowest first, without the present one."""
    height, width = view.resolution or view.spec.input_size[1:]
    short = min(height, width)
    step = 4 if short < 2 * SMALLEST else 8
    return [
        (max(step, round(height * size / short / step) * step), max(step, round(width * size / short / step) * step))
        for size in range(-(-min(SMALLEST, short // 2) // step) * step, short, step)
    ]


def _least(view: Backbone, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The lowest resolution at which a network can run. Raises InputError if there is none."""
    fault = "they are small"
    for size in sizes:
        seen = replace(view, resolution=size)
        try:
            with evaluating(view.model), torch.no_grad():
                view.model(seen_input(seen))
        except RuntimeError:  # a classifier that counts pixels, padding that is wider than the features
            fault = "one of its layers counts on their present size"
        else:
            return size
    raise InputError(f"{view.spec.full_name} does not take images of a lower resolution: {fault}")


def _cost(view: Backbone, size: tuple[int, int] | None) -> float:
    """Count what a network costs, MACs, if it sees images in this height and width."""
    return float(count(view.model, (seen_input(replace(view, resolution=size)),), view.model).flops)
