"""Networks that are done, joined to a cascade that meets a budget."""

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from routekit.cost.table import CostTable
from routekit.cost.target import Reach, parse_amount
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.fit_deferral import fit_deferral
from routekit.formats.checkpoint import network_folder, read_spec, save_network
from routekit.junctions.convert import BETWEEN
from routekit.junctions.convert import join as joined
from routekit.macs import describe
from routekit.network.deciders import IDK
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import check_classes, load_run, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import about, described_exits, known_dense, run_record, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.recipe import DataSection
from routekit.training.schedule import TrainingConfig

# So far from its budget, as a share of it, a cascade has missed it on validation images.
MISSED = 0.02


def join(
    paths: list[Path],
    data: DataSection,
    target: str,
    out: Path,
    machine: Machine,
    *,
    rule: str,
    average: bool,
    seed: int = 0,
    force: bool = False,
) -> dict[str, Any]:
    """Join the networks of runs or checkpoints, and write the run of a cascade. Nothing is trained.

    Args:
        paths: The networks, the cheapest first.
        data: Which images.
        target: The mean cost: "1.5e8", or "50%" of what the last network costs, or of what it cost before it was
            pruned.
        out: The run's folder.
        machine: Where it runs.
        rule: How certain an answer is.
        average: Whether the mean of the answers of all networks that were asked counts.
        seed: Draws what is carved out of the images.
        force: Whether an old run at `out` is replaced.

    Returns:
        The run's record.

    Raises:
        InputError: What does not fit together, or a target out of reach.
    """
    RunFolder.check_free(out, force=force, needs=paths)
    network = joined([load_run(path) for path in paths], rule=rule, average=average)
    splits = load_splits(data, network.spec, seed)
    for warning in splits.warnings:
        machine.hooks.warn(warning)
    for path in paths:
        check_classes(path, splits.classes)
    whole = _whole(network, paths[-1])
    plan = RunPlan(
        model=network.view.spec.full_name,
        weights="none",
        spec=network.spec,
        data=data,
        method="cascade",
        dense_cost=whole,
        target=parse_amount(target, whole),
        smaller=[str(path) for path in paths],
        rule=rule,
        average=average,
        training=TrainingConfig(epochs=0),
        seed=seed,
    )
    return _meet(network, plan, paths, splits, machine, partial(RunFolder.create, out, plan, force=force))


def join_behind(
    plan: RunPlan, folder: RunFolder, data: DataSplits, machine: Machine, trained: dict[str, Any]
) -> dict[str, Any]:
    """Join a plan's smaller networks and the one that was trained behind them; returns the record."""
    paths = [*map(Path, plan.smaller), folder.last.path]
    network = joined([load_run(path) for path in paths], rule=plan.rule, average=plan.average)
    return _meet(network, plan, paths, data, machine, lambda: folder, trained)


def _whole(network: RoutedNetwork, last: Path) -> float:
    """What the last network costs, dense, or what it cost before it was pruned."""
    before = read_spec(network_folder(last))["about"].get("record")
    return CostTable.measure(network).dense if before is None else float(before["flops"]["dense"])


def _meet(
    network: RoutedNetwork,
    plan: RunPlan,
    paths: Sequence[Path],
    data: DataSplits,
    machine: Machine,
    folder: Callable[[], RunFolder],
    trained: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a cascade meet the plan's target on validation images, measure it on test images, and write its run.

    `folder` gives the run's once it is needed, `trained` is the record of the last network, if that was made for this.
    """
    started = time.perf_counter()
    device = machine.accelerator().device
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    costs = CostTable.measure(network)
    assert plan.target is not None
    target, whole = plan.target, plan.dense_cost
    machine.hooks.say(
        f"target {describe(target)} of {describe(whole)}, what {network.view.spec.full_name} costs, dense"
    )
    off = set_deferral(network, data, costs, target, whole, plan.rule, machine) / target - 1
    if abs(off) > MISSED:
        machine.hooks.warn(
            f"no threshold comes nearer to the budget than {100 * off:+.1f}%: by {plan.rule}, too many images are "
            "equally certain; try another --rule"
        )
    path = folder().path
    measured = evaluate(network, data.test, costs)
    before = read_spec(network_folder(paths[-1]))["about"].get("record")
    accuracy = None if before is None else known_dense(before, data)
    if accuracy is None and (before is None or before["method"] == "dense"):
        last = load_run(paths[-1]).to(device)
        everything = torch.ones(len(data.test), len(last.columns), dtype=torch.bool)
        accuracy = evaluate(last, data.test, CostTable.measure(last), routes=everything).accuracy
    record = run_record(
        str(path),
        network,
        measured,
        data=data.name,
        split="test",
        dense_accuracy=accuracy,
        dense_flops=whole,
        target=target,
        met_on=len(data.val),
        seconds=time.perf_counter() - started + (0.0 if trained is None else trained["seconds"]),
        environment=machine.environment(),
        method="cascade",
        seed=plan.seed,
        epochs=0 if trained is None else trained["epochs"],
        **({} if plan.pruned is None else {"pruning": plan.pruned.method}),
        validation=data.val_origin,
        thresholds=[float(decider.bias) for decider in network.deciders],
        **described_exits(network, data.test, costs),
    )
    save_network(path / "network", network, about=about(record, data.classes))
    write_record(path, record)
    return record


def set_deferral(
    network: RoutedNetwork,
    data: DataSplits,
    costs: CostTable,
    target: float,
    whole: float,
    rule: str,
    machine: Machine,
) -> float:
    """Set the thresholds of a cascade, so that the mean cost on validation images is `target`.

    All stops move by one price, those inside of a network too; what is decided at units stays as it is.

    Args:
        network: The cascade.
        data: Its images.
        costs: The cost table.
        target: The mean cost, MACs.
        whole: What the last network costs, dense.
        rule: How certain an answer is.
        machine: Where warnings go.

    Returns:
        The cost on validation images.

    Raises:
        InputError: The target is out of reach.
    """
    layout, stops = costs.layout, list(costs.layout.stops)
    everything = evaluate(network, data.val, costs, everywhere=True).routes_everywhere
    each = costs.of_sections(everything.double()).mean(dim=0)
    joints = [place for place, step in enumerate(network.stops) if step.name.startswith(BETWEEN)]
    sums = [part.sum() for part in each.tensor_split([place + 1 for place in joints])]
    if any(later < earlier for earlier, later in itertools.pairwise(sums)):
        machine.hooks.warn("a network of this cascade is dearer than the one after it: give the cheapest first")
    bounds = []
    for goes in (False, True):
        routes = everything.clone()
        routes[:, stops] = goes
        bounds.append(float(costs.of_routes(layout.strike(routes)).mean()))
    least, most = bounds
    Reach(least, most, whole, "if the first answer always counts", "if all are always asked", who="this cascade").check(
        target, ""
    )
    if rule == IDK:
        fit_deferral(network, data.val, costs, target)
    share = torch.zeros_like(costs.cost_share)
    share[stops] = costs.cost_share[stops]
    return calibrate(network, data.val, costs, target, cost_share=share)


def check_smaller(paths: Sequence[Path], input_size: tuple[int, int, int], classes: Sequence[str]) -> None:
    """Raise InputError for networks that cannot come before one that is yet to be made for such images and classes."""
    for path in paths:
        found = load_run(path).spec.input_size
        if found != input_size:
            raise InputError(f"{path} takes images of {found}, not of {input_size}: no cascade can be made of them")
        check_classes(path, classes)
