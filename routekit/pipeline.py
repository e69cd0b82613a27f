"""The verbs over a recipe: load, convert, train, evaluate, export. Each is one walk down the way of the data."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from routekit.backbones.load import build, has_published_weights, load_backbone, resolve, spec_of
from routekit.backbones.unit import Backbone
from routekit.baselines.depth import static_route
from routekit.cost.budget import parse_target
from routekit.cost.macs import describe
from routekit.cost.model import CostModel
from routekit.data.sources import DataSplits, load_data
from routekit.errors import InputError
from routekit.evaluation.evaluate import Evaluation, dense_accuracy, evaluate
from routekit.export.checkpoint import load_network, network_folder, read_spec, save_network
from routekit.export.compact import compact
from routekit.machine import Hooks, Machine
from routekit.network.convert import convert, dense
from routekit.network.network import RoutedNetwork
from routekit.recipe import Recipe
from routekit.report.record import read_record, run_record, write_record
from routekit.routing.gate import gates
from routekit.routing.router import FixedRoute
from routekit.run_folder import RunFolder
from routekit.training.trainer import Trainer, step_seed


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
    )


def train(recipe: Recipe, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Carry a run to its end, from wherever its folder stands; returns its record.

    Where the recipe needs a dense network that fits the data and none is given, that is trained first.
    """
    started = time.perf_counter()
    hooks = machine.hooks
    accelerator = machine.accelerator()
    data, view, is_new = _load(recipe, hooks)
    if is_new and recipe.method != "dense":
        view = _train_dense_first(recipe, folder, machine, data)
    # Training changes the network in place: this copy is the reference, and the teacher.
    original = copy.deepcopy(view.model)
    costs = CostModel.measure(dense(view))
    target = None if recipe.target is None else parse_target(recipe.target, _cost_of(recipe, view, costs))
    network = _build(recipe, view, costs, target)
    costs = CostModel.measure(network)
    if target is not None:
        hooks.say(f"target {describe(target)} of {describe(costs.dense)} dense, {len(network.junctions)} units")
    trainer = Trainer(
        network,
        data,
        costs,
        recipe.training,
        recipe.objective,
        target=costs.dense if target is None else target,
        accelerator=accelerator,
        seed=recipe.seed,
        teacher=original if recipe.method != "dense" else None,
        folder=folder.path,
        on_step=hooks.on_step,
        say=hooks.say,
    )
    trainer.fit()
    record: dict[str, Any] = {}
    if accelerator.is_main_process:
        measured = _evaluate(recipe, network, data, costs)
        before = dense_accuracy(original.to(accelerator.device), network, data.test)
        record = run_record(
            str(folder.path),
            network,
            costs,
            measured,
            data=data.name,
            split="test",
            dense_accuracy=measured.accuracy if recipe.method == "dense" else before,
            target=target,
            seconds=time.perf_counter() - started,
            method=recipe.method,
            seed=recipe.seed,
            epochs=recipe.training.epochs,
            validation=data.val_origin,
        )
        config = None if isinstance(network.routers, FixedRoute) else recipe.routers
        about = {"classes": list(data.classes), "record": record}
        save_network(folder.path / "network", network, config, about=about)
        write_record(folder.path, record)
    accelerator.wait_for_everyone()
    return record


def _load(recipe: Recipe, hooks: Hooks) -> tuple[DataSplits, Backbone, bool]:
    """Load images and network; True if the network's classifier has yet to be trained for these classes."""
    weights = recipe.model.weights
    path = Path(weights)
    size = recipe.data.input_size
    input_size = None if size is None else (3, size, size)
    spec = spec_of(recipe.model.name, input_size=input_size)
    data = load_splits(recipe, spec.input_size)
    for warning in data.warnings:
        hooks.warn(warning)
    classes = len(data.classes)
    if weights == "auto" and not _fits(recipe, data):
        weights = "none"
    # New layers are drawn from the global generator.
    torch.manual_seed(step_seed(recipe.seed, 0))
    if path.is_dir():
        return data, _view_of_run(path, recipe, classes), False
    view = load_backbone(recipe.model.name, weights=weights, num_classes=classes, input_size=input_size)
    for note in view.notes:
        hooks.say(note)
    return data, view, weights == "none" or bool(view.notes)


def _fits(recipe: Recipe, data: DataSplits) -> bool:
    """Whether the source's own weights say anything about this data: CIFAR networks know CIFAR-10 alone."""
    if resolve(recipe.model.name)[0] == "cifar":
        return data.name == "cifar10" and has_published_weights(recipe.model.name)
    return has_published_weights(recipe.model.name)


def _view_of_run(path: Path, recipe: Recipe, classes: int) -> Backbone:
    """The dense network that an earlier run left."""
    network = load_network(path)
    spec = network.view.spec
    name = spec_of(recipe.model.name).full_name
    if spec.full_name != name:
        raise InputError(f"{path} holds {spec.full_name}, not {name}")
    if spec.num_classes != classes:
        raise InputError(f"{path} was trained for {spec.num_classes} classes, the data has {classes}")
    if not isinstance(network.routers, FixedRoute) or not bool(network.routers.route.all()):
        raise InputError(f"{path} is not a dense network: convert starts from one (`routekit finetune`)")
    return network.view


def _train_dense_first(recipe: Recipe, folder: RunFolder, machine: Machine, data: DataSplits) -> Backbone:
    """Fine-tune the dense network inside the run's folder, or take it from there if that is done."""
    dense_folder = folder.dense
    dense_recipe = recipe.model_copy(update={"method": "dense", "target": None, "training": recipe.dense})
    if not dense_folder.finished:
        machine.hooks.say(
            f"no weights of {recipe.model.name} for {data.name} are at hand: training the dense network first "
            f"({recipe.dense.epochs:g} epochs, as `routekit finetune` does), into {dense_folder.path}"
        )
        if not (dense_folder.path / "recipe.yaml").exists():
            RunFolder.create(dense_folder.path, dense_recipe, force=False)
        record = train(dense_recipe, dense_folder, machine)
        if record:
            machine.hooks.say(f"the dense network has {100 * record['accuracy']['dense']:.2f}% on test")
    return _view_of_run(dense_folder.path, recipe, len(data.classes))


def _cost_of(recipe: Recipe, view: Backbone, dense_costs: CostModel) -> CostModel:
    """The costs that bound the target: with routers if there will be some."""
    return CostModel.measure(convert(view, recipe.routers)) if recipe.method == "routed" else dense_costs


def _build(recipe: Recipe, view: Backbone, costs: CostModel, target: float | None) -> RoutedNetwork:
    torch.manual_seed(step_seed(recipe.seed, 1))
    if recipe.method == "dense":
        return dense(view)
    if target is None:
        raise InputError("a budget is missing: give --target-flops, e.g. 50%")
    if recipe.method == "routed":
        return convert(view, recipe.routers)
    return convert(view, FixedRoute(static_route(recipe.method, view, costs, target, recipe.seed)))


def _evaluate(recipe: Recipe, network: RoutedNetwork, data: DataSplits, costs: CostModel) -> Evaluation:
    return evaluate(network, data.test, costs, gate=gates[recipe.inference], seed=recipe.seed)


def evaluate_run(path: Path, recipe: Recipe | None, machine: Machine) -> dict[str, Any]:
    """Measure a finished run, or a compact checkpoint on the recipe's data, on the test set; also with routes shuffled.

    "shuffled" gives each image the route of another one: what is lost by it is what the routers know about images.
    """
    started = time.perf_counter()
    network = load_network(path)
    record = (
        read_record(path) if (path / "record.json").exists() else read_spec(network_folder(path))["about"]["record"]
    )
    if recipe is None:
        _, recipe = RunFolder.open(path)
    data = load_splits(recipe, network.view.spec.input_size)
    if len(data.classes) != network.view.spec.num_classes:
        raise InputError(f"{path} knows {network.view.spec.num_classes} classes, the data has {len(data.classes)}")
    network.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    costs = CostModel.measure(network)
    measured = _evaluate(recipe, network, data, costs)
    order = torch.randperm(len(measured.routes), generator=torch.Generator().manual_seed(recipe.seed))
    shuffled = evaluate(network, data.test, costs, routes=measured.routes[order])
    return run_record(
        str(path),
        network,
        costs,
        measured,
        data=data.name,
        split="test",
        dense_accuracy=record["accuracy"]["dense"],
        target=record["flops"]["target"],
        seconds=time.perf_counter() - started,
        shuffled_accuracy=shuffled.accuracy,
        seed=recipe.seed,
    )


def export_run(path: Path, out: Path, *, dtype: torch.dtype | None, force: bool, machine: Machine) -> dict[str, Any]:
    """Write the compact form of a finished run to `out`; returns what it saved."""
    started = time.perf_counter()
    folder, recipe = RunFolder.open(path)
    network = load_network(path).to(machine.accelerator().device)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not force:
        raise InputError(f"{out} exists: choose another --out, or replace it with --force")
    spec = read_spec(network_folder(path))
    data = load_splits(recipe, network.view.spec.input_size)
    routes = evaluate(network, data.val, CostModel.measure(network)).routes
    small = compact(network, routes)
    config = None if isinstance(network.routers, FixedRoute) else recipe.routers
    save_network(
        out, small.network, config, about=spec["about"], dropped=small.dropped, folded=small.folded, dtype=dtype
    )
    return {
        "run": str(folder.path),
        "out": str(out),
        "dropped": small.dropped,
        "folded": len(small.folded),
        "parameters": {"dense": _parameters(network.backbone), "compact": _parameters(small.network)},
        "bytes": {"run": _bytes(network_folder(path)), "compact": _bytes(out)},
        "dtype": str(dtype or torch.float32).removeprefix("torch."),
        "seconds": time.perf_counter() - started,
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def check(recipe: Recipe) -> None:
    """Raise InputError for a network, weights path or budget that cannot be, before anything is written or loaded."""
    size = recipe.data.input_size
    spec = spec_of(recipe.model.name, input_size=None if size is None else (3, size, size))
    weights = recipe.model.weights
    if weights not in ("auto", "none") and "://" not in weights and not Path(weights).exists():
        raise InputError(f"--weights {weights}: no such file or run")
    if recipe.target is not None:
        view = build(spec)
        parse_target(recipe.target, _cost_of(recipe, view, CostModel.measure(dense(view))))


def cost_table(model: str | Path, classes: int | None = None, input_size: int | None = None) -> CostModel:
    """The costs of a network by name, with the paper's routers, or of the network of a run's folder."""
    if isinstance(model, Path):
        return CostModel.measure(load_network(model))
    size = None if input_size is None else (3, input_size, input_size)
    return CostModel.measure(convert(build(spec_of(model, num_classes=classes, input_size=size))))
