"""What can be had from a run that is done: its measurement, its cost table."""

import time
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.load import build, spec_of
from routekit.cost.budget import parse_target
from routekit.cost.cascade import CascadeCost, measure_costs
from routekit.cost.model import CostModel
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.calibrate import set_price
from routekit.evaluation.evaluate import evaluate
from routekit.export.cascade import load, read_about
from routekit.export.checkpoint import load_network
from routekit.inputs import load_splits
from routekit.machine import Machine
from routekit.network.cascade import Cascade
from routekit.network.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.recipe import Recipe
from routekit.report.record import described_exits, read_record, run_record
from routekit.routing.gate import gates
from routekit.run_folder import RunFolder


def evaluate_run(path: Path, recipe: Recipe | None, machine: Machine, *, target: str | None = None) -> dict[str, Any]:
    """Measure a finished run, or a compact checkpoint on the recipe's data, on the test set; also with routes shuffled.

    With a `target`, the dial of an adaptive network is set first, on validation images, so that it is met.

    "shuffled" gives each image the route of another one: what is lost by it is what the routers know about images.
    """
    started = time.perf_counter()
    network = load(path)
    record = read_record(path) if (path / "record.json").exists() else read_about(path)["record"]
    if recipe is None:
        _, recipe = RunFolder.open(path)
    data = load_splits(recipe, network.spec.input_size)
    if len(data.classes) != network.spec.num_classes:
        raise InputError(f"{path} knows {network.spec.num_classes} classes, the data has {len(data.classes)}")
    network.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    costs = measure_costs(network)
    wanted = record["flops"]["target"]
    if target is not None:
        wanted = _turn(network, data, costs, target)
    measured = evaluate(network, data.test, costs, gate=gates[recipe.inference], seed=recipe.seed)
    order = torch.randperm(len(measured.routes), generator=torch.Generator().manual_seed(recipe.seed))
    shuffled = evaluate(network, data.test, costs, routes=measured.routes[order])
    return run_record(
        str(path),
        network,
        measured,
        data=data.name,
        split="test",
        dense_accuracy=record["accuracy"]["dense"],
        dense_flops=record["flops"]["dense"],
        target=wanted,
        seconds=time.perf_counter() - started,
        environment=machine.environment(),
        shuffled_accuracy=shuffled.accuracy,
        seed=recipe.seed,
        **({} if isinstance(network, Cascade) else described_exits(network, data.test)),
    )


def _turn(network: RoutedNetwork | Cascade, data: DataSplits, costs: CostModel | CascadeCost, target: str) -> float:
    """Set a network's dial to what meets a budget; returns it, MACs."""
    if isinstance(network, Cascade) or isinstance(costs, CascadeCost) or network.dial is None:
        raise InputError(f"{network.name} was trained for one budget: --target-flops is for runs with --adaptive-cost")
    wanted = parse_target(target, costs)
    set_price(network, data.val, costs, wanted)
    return wanted


def cost_table(model: str | Path, classes: int | None = None, input_size: int | None = None) -> CostModel:
    """The costs of a network by name, with the paper's routers, or of the network of a run's folder."""
    if isinstance(model, Path):
        return CostModel.measure(load_network(model))
    size = None if input_size is None else (3, input_size, input_size)
    return CostModel.measure(convert(build(spec_of(model, num_classes=classes, input_size=size))))
