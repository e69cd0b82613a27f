"""Steps of training in which the decisions of units are drawn, and rewarded."""

import math

import torch
from torch import Tensor

from routekit.network.execution import sparse
from routekit.network.network import RoutedNetwork
from routekit.objective.reward import Drawn, RewardConfig
from routekit.routing.gate import hard
from routekit.routing.reinforce import Drawing
from routekit.training.schedule import Schedule


def drawing_of(
    network: RoutedNetwork, reward: RewardConfig | None, schedule: Schedule, step: int, images: Tensor
) -> Drawn | None:
    """Find how a step draws the decisions of units.

    Args:
        network: The network. As long as not all units decide, its backbone is put into eval mode.
        reward: The rewards; None if there are none.
        schedule: The schedule of the run.
        step: The step.
        images: Its images `[B, C, H, W]`, normalised.

    Returns:
        How; None if it does not draw them.
    """
    if reward is None or not network.decides_at_units:
        return None
    done = schedule.since(reward.share, step)
    if done < 0:
        return None
    units, locked = len(network.junctions), 0
    if done < reward.curriculum:  # one more unit decides after each part, the last one from the beginning
        locked = units - math.ceil((done / reward.curriculum) * units + 1e-9)
    if locked:
        network.backbone.eval()
    likeliest = None
    if reward.kind == "blockdrop":
        # In the mode of training, so that it is the likeliest route of the chances by which the other one is drawn.
        with torch.no_grad():
            likeliest = network(images, gate=Drawing(hard, locked), execution=sparse)
    return Drawn(reward.choice(schedule.temperature(step)), locked, likeliest)


def leave_alone(network: RoutedNetwork, drawn: Drawn | None) -> None:
    """Forget the gradients of what computes as long as not all units decide: the policy learns alone."""
    if drawn is not None and drawn.locked:
        for parameter in network.computing_parameters():
            parameter.grad = None
