"""What a run starts from: its images, and a network that knows their classes or has yet to learn them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from routekit.backbones.load import build, has_published_weights, load_backbone
from routekit.backbones.unit import Backbone, ModelSpec
from routekit.data.preprocessing import preprocessing_of
from routekit.data.sources import DataSplits, load_data
from routekit.errors import InputError
from routekit.formats.checkpoint import load, network_folder, read_about, read_spec
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Hooks
from routekit.pipeline.run_folder import MARKER, RunFolder
from routekit.pipeline.run_plan import Facts, RunPlan
from routekit.recipe import DataSection
from routekit.training.batches import step_seed

# The classes of the CIFAR networks' published weights, in their order.
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Inputs:
    """The images and the network of a run; `untrained` if the network's classifier has yet to be trained for them."""

    data: DataSplits
    view: Backbone
    untrained: bool

    @property
    def facts(self) -> Facts:
        """What a plan wants to know of them."""
        augmentation = self.data.augmentation
        mirrored = augmentation.flip and not augmentation.unflipped
        return Facts(classes=len(self.data.classes), untrained=self.untrained, mirrored=mirrored)


def load_splits(data: DataSection, spec: ModelSpec, seed: int) -> DataSplits:
    """Load images as the network of `spec` wants them; `seed` draws what is carved out of them."""
    return load_data(
        data.source,
        data_root=Path(data.root) if data.root else None,
        download=data.download,
        val=Path(data.val) if data.val else None,
        val_from_test=data.val_from_test,
        seed=seed,
        preprocessing=preprocessing_of(spec),
        fill=data.fill,
    )


def load_inputs(plan: RunPlan, hooks: Hooks) -> Inputs:
    """Load images and network, and tell the user what had to be replaced.

    Raises InputError for data, weights or a run that are not there or do not fit.
    """
    data = load_splits(plan.data, plan.spec, plan.seed)
    for warning in data.warnings:
        hooks.warn(warning)
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
    """The dense network that an earlier run left. Raises InputError for another, of other classes or image sizes."""
    network = load_run(path)
    spec = network.view.spec
    if spec.full_name != plan.spec.full_name:
        raise InputError(f"{path} holds {spec.full_name}, not {plan.spec.full_name}")
    if spec.input_size != plan.spec.input_size:
        raise InputError(
            f"{path} takes images of {spec.input_size}, not of {plan.spec.input_size}: add "
            f"--set data.input_size={spec.input_size[1]}"
        )
    check_classes(path, classes)
    dropped = any(unit.dropped for unit in network.view.units)
    if not network.is_static or network.view.pruned or dropped:
        raise InputError(f"{path} is not a dense network: convert starts from one (`routekit finetune`)")
    return network.view


def load_run(path: Path) -> RoutedNetwork:
    """Load a run or a checkpoint; a run says by which file a network of the user's own is made. Raises InputError."""
    if (path / MARKER).exists():
        _, plan = RunFolder.open(path)
        if plan.spec.source == "custom":
            return load(path, build(plan.spec))
    return load(path)


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Raise InputError unless the network of `path` knows the `classes` of the data, by name where it knows names."""
    count = read_spec(network_folder(path))["networks"][0]["model"]["num_classes"]
    if count != len(classes):
        raise InputError(f"{path} was trained for {count} classes, the data has {len(classes)}")
    known = read_about(path).get("classes") or classes
    differs = next((pair for pair in zip(known, classes, strict=True) if pair[0] != pair[1]), None)
    if differs is not None:
        raise InputError(f"{path} was trained for other classes: {differs[0]!r} is where the data has {differs[1]!r}")


def fits(plan: RunPlan, data: DataSplits) -> bool:
    """Whether the source's own weights say anything about this data: CIFAR networks know CIFAR-10 alone.

    A user's own network comes with the weights that its factory gives it.
    """
    if plan.spec.source == "custom":
        return True
    if plan.spec.source == "cifar":
        return data.name == "cifar10" and tuple(data.classes) == CIFAR10 and has_published_weights(plan.model)
    return has_published_weights(plan.model)
