"""What can be had from a finished run: its measurement, its analysis, its cost table."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.cost.target import parse_amount, parse_target
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate, set_price
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.second_look import try_again
from routekit.formats.checkpoint import read_about
from routekit.junctions.again import look_again, look_once
from routekit.junctions.convert import convert, decided_by
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.pipeline.aim import evaluate_ladder
from routekit.pipeline.analyse import Analysis, analyse
from routekit.pipeline.explore import Explored, changes_of, dense_right, digest, settings_of, settings_of_ladder
from routekit.pipeline.inputs import check_classes, load_run, load_splits
from routekit.pipeline.join import set_deferral
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import known_dense, looks, run_record, write_run
from routekit.pipeline.run_folder import RunFolder, images_for, plan_at
from routekit.pipeline.run_plan import RunPlan
from routekit.pipeline.rungs import Ladder
from routekit.recipe import DataSection
from routekit.report.record import read_record, record_beside
from routekit.routing.gate import hard

# The entries of a run's record that a measurement takes over: how the network was made.
KEPT = ("method", "pruning", "junctions", "policy", "second_look")


def evaluate_run(path: Path, data: DataSection | None, machine: Machine) -> dict[str, Any]:
    """Measure a finished run, or a compact checkpoint, on test images; also with routes shuffled.

    In the record, "shuffled_accuracy" is the accuracy if each image takes the route of another one.

    Args:
        path: The run or checkpoint.
        data: Which images; None for the run's own.
        machine: Where it runs.

    Returns:
        The record of the measurement.

    Raises:
        InputError: The network or the images are not there, or do not fit together.
    """
    plan = plan_at(path)
    if plan is not None and plan.aim is not None and data is None:
        return evaluate_ladder(path, machine)
    return _Subject.load(path, data, machine).measure()


def evaluate_curve(
    path: Path,
    data: DataSection | None,
    machine: Machine,
    targets: list[str],
    out: Path | None = None,
    *,
    rule: str | None = None,
) -> list[dict[str, Any]]:
    """Measure one network at several budgets, each met on validation images.

    An adaptive network gets another price; where only stops decide, these get other thresholds. A second look is tried
    again for each budget, if one was tried when the network was made.

    Args:
        path: The run or checkpoint.
        data: Which images; None for the run's own.
        machine: Where it runs.
        targets: The budgets.
        out: The folder of a new run with the network for the one target; None for none.
        rule: The certainty by which exits decide, in place of what they learned.

    Returns:
        A record for each budget.

    Raises:
        InputError: The network was trained for one budget, a budget is out of reach, there is an `out` but several
            targets or no plan, or there is a rule but not only exits decide.
    """
    if out is not None:
        if len(targets) != 1:
            raise InputError(f"--keep takes one network: give one target, not {len(targets)}")
        if plan_at(path) is None:
            raise InputError(f"--keep writes a run, as it was made but for its budget, and {path} does not say how")
        RunFolder.check_free(out, force=False)
    plan = plan_at(path)
    if plan is not None and plan.aim is not None:
        raise InputError(f"{path} is a ladder, which `routekit aim` sets for another budget")
    subject = _Subject.load(path, data, machine)
    for warning in subject.data.warnings:
        machine.hooks.warn(warning)
    if rule is not None:
        subject = subject.decided_by(rule)
    records = []
    for target in targets:
        made, wanted = subject.meet(target)
        records.append(made.measure(wanted))
        if out is not None and made.plan is not None:
            RunFolder.create(out, made.plan.model_copy(update={"target": records[0]["flops"]["target"]}), force=False)
            write_run(out, made.network.cpu(), records[0] | {"run": str(out)}, made.data.classes)
    return records


def explore_run(path: Path) -> tuple[Analysis | None, Explored]:
    """What the network of a finished run does with its test images, and what it would do at other settings.

    Args:
        path: The run.

    Returns:
        The analysis, None where nothing is decided; and the settings and the images that changed their answer.

    Raises:
        InputError: The network or the images are not there, or a file is damaged.
    """
    subject = _Subject.load(path, None, Machine())
    network, data, record, dense = subject.network, subject.data, subject.record, None
    decides = record["routes"]["unique"] > 1
    analysis = analyse(network, data.test, subject.costs) if decides else None
    if subject.plan is not None and subject.plan.aim is not None:
        ladder = Ladder(RunFolder(path).forms, data, subject.machine.hooks)
        settings, dense = settings_of_ladder(path, record, ladder), dense_right(ladder, record["time"]["runtime"])
    else:
        settings = settings_of(network, data, subject.costs, record, analysis.lengths if analysis else [])
    changes = None if record["method"] == "dense" else changes_of(record, data.test, dense)
    return analysis, Explored(digest(record), settings, changes)


@dataclass(frozen=True)
class _Subject:
    """What is measured: a network and its images. `plan` is None for a checkpoint."""

    path: Path
    plan: RunPlan | None
    machine: Machine
    network: RoutedNetwork
    costs: CostTable
    data: DataSplits
    record: dict[str, Any]
    seed: int

    @classmethod
    def load(cls, path: Path, data: DataSection | None, machine: Machine) -> "_Subject":
        network = load_run(path)
        record = read_record(path) if RunFolder(path).finished else record_beside(read_about(path))
        if record is None:
            raise InputError(f"{path} holds no record of how it was made: measure it with routekit.evaluate, in Python")
        section = images_for(path, data)
        # The seed with which the network was made draws the validation images, if they are taken from others.
        seed = int(record.get("seed", 0))
        splits = load_splits(section, network.spec, seed)
        check_classes(path, splits.classes)
        if record.get("validation") == "test" and splits.val_origin != "test" and splits.name == record["data"]:
            machine.hooks.warn(
                f"{path} met its budget on some of the test images of {splits.name}, which are measured here again: "
                "give the data.val_from_test that it was made with"
            )
        network.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(path, plan_at(path), machine, network, CostTable.measure(network), splits, record, seed)

    def decided_by(self, rule: str) -> "_Subject":
        """The same with stops that decide by a rule. Raises InputError where other things are decided as well."""
        if self.network.junctions or not self.network.stops:
            raise InputError(f"{self.network.name} has no exits alone: another policy can decide for those only")
        network = decided_by(self.network, rule)
        (source,) = network.blueprint.sources
        configs = {junction.kind: junction for junction in source.junctions}
        plan = self.plan and self.plan.model_copy(update={"junctions": configs, "prices": None})
        record = self.record | {"policy": rule}
        return replace(self, network=network, costs=CostTable.measure(network), plan=plan, record=record)

    def meet(self, target: str) -> tuple["_Subject", float]:
        """Let the network meet a budget on validation images -> what meets it, and the budget, MACs."""
        network, costs, val = self.network, self.costs, self.data.val
        whole = self.record["flops"]["dense"]
        if len(network.blueprint.sources) > 1:
            wanted = parse_amount(target, whole)
            set_deferral(network, self.data, costs, wanted, whole, network.blueprint.rule, self.machine)
            return self, wanted
        # Per cent of what the user came with, which may have been pruned, compacted or folded since.
        wanted = parse_target(target, costs, dense=whole)
        if network.pricing is not None:
            set_price(network, val, costs, wanted)
            return self, wanted
        if network.junctions or not network.stops:
            raise InputError(
                f"{network.name} was trained for one budget: another target is for runs with adaptive_cost, and for "
                "cascades and exits alone, where a threshold decides"
            )
        if "second_look" not in self.record:
            calibrate(network, val, costs, wanted)
            return self, wanted
        once = look_once(network)
        calibrate(once, val, CostTable.measure(once), wanted)
        made, found = try_again(once, look_again(once), val, wanted)
        record = self.record | looks(made, found, self.record["junctions"])
        return replace(self, network=made, costs=CostTable.measure(made), record=record), wanted

    def measure(self, target: float | None = None) -> dict[str, Any]:
        """Measure on the test images; `target` is the budget that was met, MACs; None for the run's own."""
        started = time.perf_counter()
        network, test, seed, flops = self.network, self.data.test, self.seed, self.record["flops"]
        inference = "hard" if self.plan is None else self.plan.inference
        gate = hard if self.plan is None else self.plan.training.deciding(inference)
        measured = evaluate(network, test, self.costs, gate=gate, seed=seed)
        order = torch.randperm(len(measured.routes), generator=torch.Generator().manual_seed(seed))
        shuffled = evaluate(network, test, self.costs, routes=measured.routes[order])
        is_dense = self.record["method"] == "dense"  # another network does not hold the dense one that it was made of
        return run_record(
            self.path,
            network,
            measured,
            self.data,
            self.costs,
            self.machine,
            dense=measured.accuracy if is_dense else known_dense(self.record, self.data),
            dense_flops=flops["dense"],
            target=flops["target"] if target is None else target,
            seconds=time.perf_counter() - started,
            shuffled_accuracy=shuffled.accuracy,
            seed=seed,
            inference=inference,
            validation=self.data.val_origin,
            **{key: self.record[key] for key in KEPT if key in self.record},
        )


def cost_table(model: str | Path, classes: int | None = None, input_size: int | None = None) -> CostTable:
    """Measure the parts of a network, with fully connected routers if it has units to skip.

    Args:
        model: The name of a network, or the folder of a run.
        classes: The number of classes; None for the network's own.
        input_size: The height and width of images, pixels; None for the network's own.

    Returns:
        The cost table.

    Raises:
        InputError: There is no such network or run.
    """
    if isinstance(model, str) and "/" in model and ":" not in model:
        raise InputError(f"{model} does not exist: give a run's folder, or a network's name")
    if isinstance(model, Path):
        return CostTable.measure(load_run(model))
    size = None if input_size is None else (3, input_size, input_size)
    view = build(spec_of(model, num_classes=classes, input_size=size))
    return CostTable.measure(convert(view, [Skip()] if any(unit.skippable for unit in view.units) else []))
