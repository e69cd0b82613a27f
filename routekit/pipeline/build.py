"""From a dense network to the network of a plan."""

import torch

from routekit.backbones.unit import Backbone
from routekit.baselines.depth import static_depth
from routekit.baselines.forms import form_of
from routekit.baselines.pruning import prune, prunings
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.pipeline.run_plan import RunPlan
from routekit.training.batches import step_seed


def ladder_of(plan: RunPlan, view: Backbone) -> list[RoutedNetwork]:
    """Make the forms of a ladder.

    Args:
        plan: The plan.
        view: The dense network. It stays as it is.

    Returns:
        The forms, the cheapest first, and last the dense network.

    Raises:
        InputError: The network has no such form.
    """
    torch.manual_seed(step_seed(plan.seed, 1))
    return [*(form_of(view, form.kind, form.cost, plan.seed) for form in plan.forms), convert(view)]


def network_of(plan: RunPlan, view: Backbone) -> RoutedNetwork:
    """Make the network that a plan trains.

    Args:
        plan: The plan.
        view: The dense network. The new one may share its modules.

    Returns:
        The network: pruned, routed, or as it is.

    Raises:
        InputError: The plan does not fit the network.
    """
    torch.manual_seed(step_seed(plan.seed, 1))
    if plan.method == "dense" or plan.target is None:
        return convert(view)
    if plan.method in prunings:
        return convert(prune(view, plan.method, plan.target, plan.seed))
    if plan.method != "routed":
        return convert(static_depth(plan.method, view, plan.target, plan.seed))
    if plan.pruned is not None:
        view = prune(view, plan.pruned.method, plan.pruned.cost, plan.seed)
    return convert(view, list(plan.junctions.values()), routers=plan.routers, adaptive_cost=plan.prices)
