"""Finished networks, joined to a cascade that meets a budget."""

import itertools
import time
from collections.abc import Sequence
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
from routekit.formats.checkpoint import read_about
from routekit.junctions.convert import BETWEEN
from routekit.junctions.convert import join as joined
from routekit.macs import describe
from routekit.network.deciders import IDK
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import check_classes, load_images, load_run
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import known_dense, right_of_all, run_record, write_run
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.recipe import DataSection
from routekit.report.record import record_beside
from routekit.training.schedule import TrainingConfig

# A cascade that misses its budget on validation images by more than this share of it is warned of.
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
        average: Whether the answer is the mean of the answers of all networks that ran.
        seed: It draws the validation images, if these are taken from others.
        force: Whether an old run at `out` is replaced.

    Returns:
        The run's record.

    Raises:
        InputError: Networks and images do not fit together, or the target is out of reach.
    """
    RunFolder.check_free(out, force=force, needs=paths)
    network = joined([load_run(path) for path in paths], rule=rule, average=average)
    before = record_beside(read_about(paths[-1]))
    whole = CostTable.measure(network).dense if before is None else float(before["flops"]["dense"])
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
    splits = load_images(plan, machine.hooks)
    for path in paths:
        check_classes(path, splits.classes)
    record = _meet(network, plan, paths[-1], out, splits, machine)
    RunFolder.create(out, plan, force=force)
    write_run(out, network, record, splits.classes)
    return record


def join_behind(
    plan: RunPlan, folder: RunFolder, data: DataSplits, machine: Machine, trained: dict[str, Any]
) -> dict[str, Any]:
    """Join the smaller networks of a plan with the one that was trained behind them, and write the run.

    Args:
        plan: The plan.
        folder: The run's folder. It holds the run of the last network.
        data: The images.
        machine: Where it runs.
        trained: The record of the last network.

    Returns:
        The run's record.

    Raises:
        InputError: The target is out of reach.
    """
    last = folder.last.path
    paths = [*map(Path, plan.smaller), last]
    network = joined([load_run(path) for path in paths], rule=plan.rule, average=plan.average)
    record = _meet(network, plan, last, folder.path, data, machine, trained)
    write_run(folder.path, network, record, data.classes)
    return record


def _meet(
    network: RoutedNetwork,
    plan: RunPlan,
    last: Path,
    out: Path,
    data: DataSplits,
    machine: Machine,
    trained: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a cascade meet its target on validation images, and measure it on test images -> its record.

    `trained` is the record of the `last` network, if that was trained for this cascade.
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
            "equally certain; try another rule"
        )
    measured = evaluate(network, data.test, costs)
    before = record_beside(read_about(last))
    dense = None if before is None else known_dense(before, data)
    if dense is None and (before is None or before["method"] == "dense"):
        dense = right_of_all(load_run(last).to(device), data.test)
    pruning: dict[str, Any] = {} if plan.pruned is None else {"pruning": plan.pruned.method}
    return run_record(
        out,
        network,
        measured,
        data,
        costs,
        machine,
        dense=dense,
        dense_flops=whole,
        target=target,
        seconds=time.perf_counter() - started + (0.0 if trained is None else trained["seconds"]),
        method="cascade",
        seed=plan.seed,
        epochs=0 if trained is None else trained["epochs"],
        **pruning,
        validation=data.val_origin,
        thresholds=[float(decider.bias) for decider in network.deciders],
    )


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
        The mean cost on validation images, MACs.

    Raises:
        InputError: The target is out of reach.
    """
    layout, stops = costs.layout, list(costs.layout.stops)
    everything = evaluate(network, data.val, costs, everywhere=True).routes_everywhere
    each = costs.of_sections(everything.double()).mean(dim=0)
    ends = [place + 1 for place, step in enumerate(network.stops) if step.name.startswith(BETWEEN)]
    sums = [part.sum() for part in each.tensor_split(ends)]
    if any(later < earlier for earlier, later in itertools.pairwise(sums)):
        machine.hooks.warn("a network of this cascade is dearer than the one after it: give the cheapest first")
    bounds = []
    for goes in (False, True):
        everything[:, stops] = goes
        bounds.append(float(costs.of_routes(layout.strike(everything)).mean()))
    (least, most), words = bounds, ("if the first answer always counts", "if all are always asked")
    Reach(least, most, whole, *words, who="this cascade").check(target)
    if rule == IDK:
        fit_deferral(network, data.val, costs, target)
    share = torch.zeros_like(costs.cost_share)
    share[stops] = costs.cost_share[stops]
    return calibrate(network, data.val, costs, target, cost_share=share)


def check_smaller(paths: Sequence[Path], input_size: tuple[int, int, int], classes: Sequence[str]) -> None:
    """Check that finished networks can run before one that is yet to be made.

    Args:
        paths: The finished networks.
        input_size: The channels, height and width of the images of the other one.
        classes: Its classes.

    Raises:
        InputError: A network takes other images, or has other classes.
    """
    for path in paths:
        found = load_run(path).spec.input_size
        if found != input_size:
            raise InputError(f"{path} takes images of {found}, not of {input_size}: no cascade can be made of them")
        check_classes(path, classes)
