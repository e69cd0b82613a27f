"""The Python API: the verbs in the order of the work, on data of any form. The command line uses the same code."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.unit import ModelSpec
from routekit.cost.table import CostTable
from routekit.cost.target import parse_target
from routekit.data.sources import DataSplits, load_data
from routekit.data.tensors import Labelled, splits_of
from routekit.errors import InputError
from routekit.evaluation import calibrate as calibration
from routekit.evaluation.evaluate import Evaluation
from routekit.evaluation.evaluate import evaluate as measure
from routekit.files import check_folder, own_folder
from routekit.formats import checkpoint
from routekit.formats.compact import compact
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.pipeline.aim import aim_run
from routekit.pipeline.machine import Machine
from routekit.pipeline.train import run as carry_out
from routekit.recipe import Recipe, check_no_code, load_recipe
from routekit.training.log import Progress
from routekit.training.schedule import TrainingConfig
from routekit.training.trainer import Trainer

Data = str | Path | DataSplits | Labelled | Sequence[Labelled]
# By default, a network learns the logits of its teacher, and the features of the teacher after each stage.
TAUGHT = ObjectiveWeights(distillation=0.9, feature_distillation=10.0)
ALONE = ObjectiveWeights()


def data(source: Data, spec: ModelSpec, seed: int = 0) -> DataSplits:
    """Bring images of any form into the form that training and evaluation take.

    Args:
        source: The name of a data set, a folder with train/ and test/, the splits of `load_data`, or labelled images: a
            pair of tensors, a torch `Dataset`, a `DataLoader`; or a sequence of up to three of these, for training,
            validation and test. uint8 images are normalised as `spec` has it, float images are used as they are.
        spec: The architecture of the network, with the form of its images.
        seed: It draws the validation images, if these are taken from others.

    Returns:
        The splits.

    Raises:
        InputError: The data are not there, or have another form.
    """
    if isinstance(source, DataSplits):
        return source
    if isinstance(source, str | Path):
        return load_data(str(source), seed=seed, preprocessing=spec.preprocessing)
    return splits_of(source, spec.input_size, spec.num_classes, seed)


def fit(
    network: RoutedNetwork,
    source: Data,
    *,
    target: str | float | None = None,
    teacher: nn.Module | RoutedNetwork | None = None,
    training: TrainingConfig | None = None,
    objective: ObjectiveWeights | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
    folder: str | Path | None = None,
    device: str | None = None,
    seed: int = 0,
    on_step: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> RoutedNetwork:
    """Train a network, so that it meets a budget on validation images.

    Args:
        network: The network, which is trained in place.
        source: The images: see `data`.
        target: The mean cost: "50%" of the dense network's, "1.5e8", or a number of MACs. None for no budget.
        teacher: The dense network that teaches it; None for no teacher.
        training: How it is trained.
        objective: What is minimised.
        loss: Logits `[B, classes]` and labels `[B]` -> the loss of each image `[B]`, in place of cross-entropy.
        optimizer: Builds an optimiser from groups of parameters, in place of SGD. Each group has "params",
            "weight_decay", and a "scale" on the learning rate of the schedule.
        folder: Where the state is kept; the same call then resumes from it. None: nowhere.
        device: "cpu" or "cuda"; None for CUDA if there is any.
        seed: The seed of every random choice.
        on_step: Called after each step.
        say: Called with sentences for the user.

    Returns:
        The network, in eval mode.

    Raises:
        InputError: A budget that it cannot meet, or images that do not fit.
        TrainingError: The loss is not finite.
    """
    splits = data(source, network.spec, seed)
    costs = CostTable.measure(network)
    if isinstance(teacher, nn.Module) and not isinstance(teacher, RoutedNetwork):
        teacher = convert(teacher, spec=network.view.spec)
    trainer = Trainer(
        network,
        splits,
        costs,
        training or TrainingConfig(),
        objective or (ALONE if teacher is None else TAUGHT),
        target=costs.dense if target is None else _cost(target, costs),
        accelerator=Machine(device).accelerator(),
        seed=seed,
        teacher=teacher,
        folder=None if folder is None else own_folder(Path(folder), "training"),
        on_step=on_step,
        say=say,
        loss=loss,
        optimizer=optimizer,
    )
    return trainer.fit().eval()


def evaluate(network: RoutedNetwork, source: Data, *, target: str | float | None = None, seed: int = 0) -> Evaluation:
    """Measure a network on test images under hard routing.

    Args:
        network: The network.
        source: The images: see `data`. A set that is not divided is measured as a whole.
        target: A mean cost that is met on the validation images first, for a network with thresholds or a price of
            computing; None: the network is measured as it is.
        seed: It draws the validation images, if these are taken from others.

    Returns:
        The `accuracy`, the `cost` (MACs, routers included) and the `routes`.

    Raises:
        InputError: A budget out of reach, or images that do not fit.
    """
    splits = data(source, network.spec, seed)
    costs = CostTable.measure(network)
    if target is not None:
        if network.is_static:
            raise InputError(f"nothing is decided in this {network.name}: it costs what it costs")
        wanted = _cost(target, costs)
        meet = calibration.calibrate if network.pricing is None else calibration.set_price
        meet(network, splits.val, costs, wanted)
    return measure(network, splits.test, costs)


def save(
    network: RoutedNetwork,
    folder: str | Path,
    *,
    classes: Sequence[str] = (),
    dtype: str = "float32",
    force: bool = False,
) -> Path:
    """Write a network to a folder that `load` reads: JSON and safetensors.

    Args:
        network: The network.
        folder: The folder, which is made if it is not there.
        classes: The names of the classes, for predictions.
        dtype: The type of the stored parameters: "float32", "float16" or "bfloat16".
        force: Whether an older network there is replaced.

    Returns:
        The folder.

    Raises:
        InputError: Something else is there.
    """
    check_folder(Path(folder), "network", force=force)
    about = {"classes": list(classes)} if classes else {}
    checkpoint.save_network(Path(folder), network, about=about, dtype=getattr(torch, dtype))
    return Path(folder)


def export(
    network: RoutedNetwork,
    folder: str | Path,
    *,
    kind: str = "onnx",
    classes: Sequence[str] = (),
    images: Tensor | None = None,
    precision: str = "fp32",
    force: bool = False,
) -> list[Path]:
    """Write a network for another runtime.

    Args:
        network: The network.
        folder: The folder, which is made if it is not there.
        kind: "onnx" or "openvino", which skip what an image does not need; "passes", a plain ONNX graph for each pass
            of a cascade; "torch", a program that computes everything; or "compact", a smaller checkpoint for `load`.
        classes: The names of the classes.
        images: Typical images `[N, C, H, W]`, normalised, some hundred. For "compact": units that none of them runs are
            dropped. For int8: the ranges of features are theirs.
        precision: Of "passes": "fp32" or "int8".
        force: Whether an older network there is replaced.

    Returns:
        The files.

    Raises:
        InputError: An unknown format, a package that is not installed, or something else is there.
        ExportError: The format cannot hold the network.
    """
    from routekit.pipeline.export import write

    about = {"classes": list(classes)} if classes else {}
    quantised = kind == "passes" and precision == "int8"
    if not quantised and precision != "fp32":
        raise InputError(f"precision={precision!r}: passes are fp32 or int8, other formats fp32")
    if images is None and (quantised or kind == "compact"):
        raise InputError("typical images say which units run, and which values features have: give images")
    if kind == "compact":
        assert images is not None
        with torch.no_grad():
            routes = network.eval()(images).routes
        return [save(compact(network, routes).network, folder, classes=classes, force=force)]
    check_folder(Path(folder), "network", force=force)
    files = write(kind, Path(folder), network, about)
    if quantised:
        from routekit.runtime.quantize import quantize_passes

        assert images is not None
        quantize_passes(Path(folder), images)
    return files


def run(recipe: Recipe | str, folder: str | Path, *, force: bool = False, **settings: Any) -> dict[str, Any]:
    """Carry out a recipe, as `routekit convert` and `routekit finetune` do.

    >>> run("default", "runs/mine", target="50%", data={"source": "digits"})

    Args:
        recipe: The recipe, or its name.
        folder: The run's folder.
        force: Whether an old run there is replaced.
        **settings: Settings that replace those of the recipe, sections or single values: `training={"epochs": 2}`.

    Returns:
        The run's record.

    Raises:
        InputError: Some input is wrong.
    """
    if isinstance(recipe, str):
        values = {
            f"{name}.{key}" if key else name: each
            for name, value in settings.items()
            for key, each in (value.items() if isinstance(value, dict) and name != "junctions" else [("", value)])
        }
        if "model.name" not in values:
            check_no_code(recipe)
        recipe = load_recipe(recipe, values)
    elif settings:
        raise InputError("settings go with the name of a recipe: a Recipe has its own")
    return carry_out(recipe, Path(folder), Machine(), force=force)


def aim(folder: str | Path, *, target: str | None = None, **changes: Any) -> dict[str, Any]:
    """Choose passes of a finished ladder for another aim, as `routekit aim` does. Nothing is trained.

    >>> aim("runs/mine", ms=3.0, runtime="torch", batch=8)

    Args:
        folder: The run's folder. Its passes, its network and its record are replaced.
        target: A mean cost: "1.5e8", or "50%" of the dense network's; None for none.
        **changes: What is other than in the run's last aim: `ms`, `speedup`, `max_drop` (in per cent of the images),
            `max_size`, `runtime`, `precision`, `batch`, `threads`.

    Returns:
        The run's new record.

    Raises:
        InputError: It is no finished ladder, or the aim is none, or cannot be met.
    """
    return aim_run(Path(folder), changes, target, Machine())


def _cost(target: str | float, costs: CostTable) -> float:
    """A target in words or MACs -> MACs. Raises InputError if it cannot be met."""
    return parse_target(target if isinstance(target, str) else f"{target:.6g}", costs)
