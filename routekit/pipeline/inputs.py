"""What a run starts from: its images, and a network that is trained for their classes or not yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from routekit.backbones.load import build, has_published_weights, load_backbone
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.data.sources import DataSplits, load_data
from routekit.errors import InputError
from routekit.formats.checkpoint import load, network_folder, read_about, read_spec
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Hooks
from routekit.pipeline.run_folder import plan_at
from routekit.pipeline.run_plan import Facts, RunPlan
from routekit.recipe import DataSection
from routekit.training.batches import step_seed

# The classes of the CIFAR networks' published weights, in their order.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Inputs:
    """The images and the network of a run; `untrained` if its classifier is not yet trained for their classes."""

    data: DataSplits
    view: Backbone
    untrained: bool


def facts_of(data: DataSplits, *, untrained: bool = False) -> Facts:
    """What a plan depends on.

    Args:
        data: The images.
        untrained: Whether the network's classifier is not yet trained for their classes.

    Returns:
        The facts.
    """
    augmentation = data.augmentation
    mirrored = augmentation.flip and not augmentation.unflipped
    return Facts(classes=len(data.classes), untrained=untrained, mirrored=mirrored)


def load_splits(data: DataSection, spec: ModelSpec, seed: int) -> DataSplits:
    """Load images as a network takes them.

    Args:
        data: Which images.
        spec: The network.
        seed: It draws the validation images, if these are taken from others.

    Returns:
        The images.

    Raises:
        InputError: There are no such images, or they are damaged.
    """
    return load_data(
        data.source,
        data_root=Path(data.root) if data.root else None,
        download=data.download,
        val=Path(data.val) if data.val else None,
        val_from_test=data.val_from_test,
        seed=seed,
        preprocessing=spec.preprocessing,
        fill=data.fill,
        augment=data.augment,
    )


def load_images(plan: RunPlan, hooks: Hooks) -> DataSplits:
    """Load the images of a plan, and warn of what is unusual about them.

    Args:
        plan: The plan.
        hooks: Where the warnings go.

    Returns:
        The images.

    Raises:
        InputError: There are no such images, or they are damaged.
    """
    data = load_splits(plan.data, plan.spec, plan.seed)
    for warning in data.warnings:
        hooks.warn(warning)
    return data


def load_inputs(plan: RunPlan, data: DataSplits, hooks: Hooks) -> Inputs:
    """Load the network of a plan, and tell the user what had to be replaced in it.

    Args:
        plan: The plan.
        data: The images of the plan.
        hooks: Where the sentences go.

    Returns:
        Images and network.

    Raises:
        InputError: There are no such weights, or they do not fit the network or the classes.
    """
    weights = plan.weights
    if Path(weights).is_dir():
        return Inputs(data, view_of_run(Path(weights), plan, data.classes), untrained=False)
    if weights == "auto" and not fits(plan, data):
        weights = "none"
    # New layers are drawn from the global generator.
    torch.manual_seed(step_seed(plan.seed, 0))
    spec = replace(plan.spec, num_classes=len(data.classes))
    view = load_backbone(plan.model, weights=weights, spec=spec)
    for note in view.notes:
        hooks.say(note)
    return Inputs(data, view, untrained=weights == "none" or bool(view.notes))


def view_of_run(path: Path, plan: RunPlan, classes: Sequence[str]) -> Backbone:
    """Load the dense network of an earlier run.

    Args:
        path: The run.
        plan: The plan of the new run.
        classes: The classes of its images.

    Returns:
        The network.

    Raises:
        InputError: It is another network, or not dense, or was trained for other classes or image sizes.
    """
    network = load_run(path)
    spec = network.view.spec
    if spec.full_name != plan.spec.full_name:
        raise InputError(f"{path} holds {spec.full_name}, not {plan.spec.full_name}")
    if spec.input_size != plan.spec.input_size:
        raise InputError(
            f"{path} takes images of {spec.input_size}, not of {plan.spec.input_size}: add "
            f"data.input_size={spec.input_size[1]}"
        )
    check_classes(path, classes)
    dropped = any(unit.dropped for unit in network.view.units)
    if network.folded:
        raise InputError(f"{path} is compact, without batch norms, and cannot learn: give the run it was made of")
    if not network.is_static or network.view.pruned or dropped:
        raise InputError(f"{path} is not a dense network: convert starts from one (`routekit finetune`)")
    return network.view


def load_run(path: Path) -> RoutedNetwork:
    """Load a run or a checkpoint; the plan of a run names the file of a user's own network. Raises InputError."""
    plan = plan_at(path)
    return load(path, None if plan is None or plan.spec.source != "custom" else partial(build, plan.spec))


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Check that a network was trained for the classes of the images.

    Args:
        path: The run or checkpoint. Names of classes are compared if it holds them.
        classes: The classes of the images.

    Raises:
        InputError: It was trained for other classes.
    """
    count = read_spec(network_folder(path))["networks"][0]["model"]["num_classes"]
    if count != len(classes):
        raise InputError(f"{path} was trained for {count} classes, the data has {len(classes)}")
    known = read_about(path).get("classes") or classes
    for own, other in zip(known, classes, strict=True):
        if own != other:
            raise InputError(f"{path} was trained for other classes: {own!r} is where the data has {other!r}")


def fits(plan: RunPlan, data: DataSplits) -> bool:
    """Whether the published weights of a network can be used for images. Those of CIFAR networks are for CIFAR-10.

    Args:
        plan: The plan, which names the network. A user's own network comes with weights of its own.
        data: The images.

    Returns:
        Whether there are weights, and they fit.
    """
    if plan.spec.source == "cifar" and (data.name != "cifar10" or tuple(data.classes) != CIFAR10):
        return False
    return plan.spec.source == "custom" or has_published_weights(plan.model)
