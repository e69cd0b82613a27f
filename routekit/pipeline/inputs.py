"""What a run starts from: its images, and a network that knows their classes or has yet to learn them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from routekit.backbones.load import has_published_weights, load_backbone, resolve, spec_of
from routekit.backbones.unit import Backbone
from routekit.data.sources import DataSplits, load_data
from routekit.errors import InputError
from routekit.export.cascade import cascade_folder, read_about
from routekit.export.checkpoint import load_network, network_folder, read_spec
from routekit.pipeline.build import spec_of_recipe
from routekit.pipeline.machine import Hooks
from routekit.recipe import Recipe
from routekit.routing.router import FixedRoute
from routekit.training.batches import step_seed

# The classes of the CIFAR networks' published weights, in their order.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Inputs:
    """The images and the network of a run; `untrained` if the network's classifier has yet to be trained for them."""

    data: DataSplits
    view: Backbone
    untrained: bool


def load_splits(recipe: Recipe, input_size: tuple[int, int, int]) -> DataSplits:
    """Load the recipe's images at the network's input size."""
    data = recipe.data
    return load_data(
        data.source,
        data_root=Path(data.root) if data.root else None,
        download=data.download,
        val=Path(data.val) if data.val else None,
        val_from_test=data.val_from_test,
        seed=recipe.seed,
        input_size=input_size,
        fill=data.fill,
    )


def load_inputs(recipe: Recipe, hooks: Hooks) -> Inputs:
    """Load images and network, and tell the user what had to be replaced.

    Raises InputError for data, weights or a run that are not there or do not fit.
    """
    data = load_splits(recipe, spec_of_recipe(recipe).input_size)
    for warning in data.warnings:
        hooks.warn(warning)
    weights = recipe.model.weights
    if Path(weights).is_dir():
        return Inputs(data, view_of_run(Path(weights), recipe, data.classes), untrained=False)
    if weights == "auto" and not fits(recipe, data):
        weights = "none"
    # New layers are drawn from the global generator.
    torch.manual_seed(step_seed(recipe.seed, 0))
    size = spec_of_recipe(recipe).input_size
    view = load_backbone(recipe.model.name, weights=weights, num_classes=len(data.classes), input_size=size)
    for note in view.notes:
        hooks.say(note)
    return Inputs(data, view, untrained=weights == "none" or bool(view.notes))


def view_of_run(path: Path, recipe: Recipe, classes: Sequence[str]) -> Backbone:
    """The dense network that an earlier run left. Raises InputError for another, of other classes or image sizes."""
    network = load_network(path)
    spec = network.view.spec
    name = spec_of(recipe.model.name).full_name
    if spec.full_name != name:
        raise InputError(f"{path} holds {spec.full_name}, not {name}")
    size = spec_of_recipe(recipe).input_size
    if spec.input_size != size:
        raise InputError(
            f"{path} takes images of {spec.input_size}, not of {size}: add --set data.input_size={spec.input_size[1]}"
        )
    check_classes(path, classes)
    if not isinstance(network.routers, FixedRoute) or not bool(network.routers.route.all()):
        raise InputError(f"{path} is not a dense network: convert starts from one (`routekit finetune`)")
    return network.view


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Raise InputError unless the network of `path` knows the `classes` of the data, by name where it knows names."""
    cascade = cascade_folder(path)
    count = read_spec(network_folder(path if cascade is None else cascade / "0"))["model"]["num_classes"]
    if count != len(classes):
        raise InputError(f"{path} was trained for {count} classes, the data has {len(classes)}")
    known = read_about(path).get("classes") or classes
    differs = next((pair for pair in zip(known, classes, strict=True) if pair[0] != pair[1]), None)
    if differs is not None:
        raise InputError(f"{path} was trained for other classes: {differs[0]!r} is where the data has {differs[1]!r}")


def fits(recipe: Recipe, data: DataSplits) -> bool:
    """Whether the source's own weights say anything about this data: CIFAR networks know CIFAR-10 alone."""
    if resolve(recipe.model.name)[0] == "cifar":
        return data.name == "cifar10" and tuple(data.classes) == CIFAR10 and has_published_weights(recipe.model.name)
    return has_published_weights(recipe.model.name)
