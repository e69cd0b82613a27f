"""What can be had from a run that is done: its measurement, its cost table."""

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
from routekit.formats.checkpoint import read_about, save_network
from routekit.junctions.again import look_again, look_once
from routekit.junctions.convert import convert, decided_by
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.pipeline.analyse import Analysis, analyse
from routekit.pipeline.inputs import check_classes, load_run, load_splits
from routekit.pipeline.join import set_deferral
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import about, described_exits, known_dense, looks, run_record, write_record
from routekit.pipeline.run_folder import MARKER, RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.recipe import DataSection
from routekit.report.record import read_record
from routekit.routing.gate import gates

# What a measurement takes over from the run's record: how its network was made.
KEPT = ("method", "pruning", "junctions", "policy", "second_look")


def evaluate_run(path: Path, data: DataSection | None, machine: Machine) -> dict[str, Any]:
    """Measure a finished run, or a compact checkpoint, on test images; also with routes shuffled.

    "shuffled" gives each image the route of another one: what is lost by it is what the routers know about images.

    Args:
        path: The run or checkpoint.
        data: Which images; None for the run's own.
        machine: Where it runs.

    Returns:
        The record of the measurement.

    Raises:
        InputError: The network or the images are not there, or do not fit together.
    """
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

    It is for an adaptive network, whose price is set, and for what stops alone decide, whose thresholds are. Whether it
    looks again is tried for each budget, if it was when the network was made.

    Args:
        path: The run or checkpoint.
        data: Which images; None for the run's own.
        machine: Where it runs.
        targets: The budgets.
        out: Where the network is written as it is set for the one target, to be exported or timed.
        rule: By which certainty exits decide, and not by what they learned: the same classifiers, another policy.

    Returns:
        A record for each budget.

    Raises:
        InputError: The network was trained for one budget, a budget is out of reach, there are several with `out`, or
            there is a rule for what has more than exits.
    """
    if out is not None:
        if len(targets) != 1:
            raise InputError(f"--keep takes one network: give one target, not {len(targets)}")
        RunFolder.check_free(out, force=False)
    subject = _Subject.load(path, data, machine)
    for warning in subject.data.warnings:
        machine.hooks.warn(warning)
    if rule is not None:
        subject = subject.decided_by(rule)
    records = []
    for target in targets:
        turned, wanted = subject.turn(target)
        records.append(turned.measure(wanted))
        if out is not None:
            turned.keep(out, records[0])
    return records


def analyse_run(path: Path) -> Analysis:
    """Find out what a finished run's network does with its test images."""
    subject = _Subject.load(path, None, Machine())
    return analyse(subject.network, subject.data.test, subject.costs)


@dataclass(frozen=True)
class _Subject:
    """What is measured: a network on its data."""

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
        record = read_record(path) if (path / "record.json").exists() else read_about(path)["record"]
        plan = RunFolder.open(path)[1] if (path / MARKER).exists() else None
        section = data or (None if plan is None else plan.data)
        if section is None:
            raise InputError(f"{path} is no run with a plan: say which images with --data")
        # What is carved out of the images is drawn by the seed with which the network was made.
        seed = int(record.get("seed", 0))
        splits = load_splits(section, network.spec, seed)
        check_classes(path, splits.classes)
        if record.get("validation") == "test" and splits.val_origin != "test" and splits.name == record["data"]:
            machine.hooks.warn(
                f"{path} met its budget on some of the test images of {splits.name}, which are measured here again: "
                "give the --val-from-test that it was made with"
            )
        network.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(path, plan, machine, network, CostTable.measure(network), splits, record, seed)

    @property
    def inference(self) -> str:
        """Whether decisions are taken, or sampled."""
        return "hard" if self.plan is None else self.plan.inference

    def decided_by(self, rule: str) -> "_Subject":
        """The same with stops that decide by a rule. Raises InputError where that is not all that is decided."""
        if self.network.junctions or not self.network.stops:
            raise InputError(f"{self.network.name} has no exits alone: another policy can decide for those only")
        network = decided_by(self.network, rule)
        record = self.record | {"policy": rule}
        (source,) = network.blueprint.sources
        configs = {junction.kind: junction for junction in source.junctions}
        plan = self.plan and self.plan.model_copy(update={"junctions": configs, "prices": None})
        return replace(self, network=network, costs=CostTable.measure(network), plan=plan, record=record)

    def turn(self, target: str) -> tuple["_Subject", float]:
        """Let the network meet a budget on validation images; returns what meets it, and the budget, MACs."""
        network, costs, val = self.network, self.costs, self.data.val
        whole = self.record["flops"]["dense"]
        if len(network.blueprint.sources) > 1:
            wanted, rule = parse_amount(target, whole), network.blueprint.rule
            set_deferral(network, self.data, costs, wanted, whole, rule, self.machine)
            return self, wanted
        # Per cent of what the user came with, which may have been pruned, compacted or folded since.
        wanted = parse_target(target, costs, dense=whole)
        if network.pricing is not None:
            set_price(network, val, costs, wanted)
            return self, wanted
        if network.junctions or not network.stops:
            raise InputError(
                f"{network.name} was trained for one budget: --target-flops is for runs with --adaptive-cost, and for "
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

    def keep(self, out: Path, record: dict[str, Any]) -> None:
        """Write the network as it is now, and its record, as a finished run at `out`."""
        if self.plan is None:
            raise InputError(
                f"--keep writes a run, as it was made but for its budget, and {self.path} does not say how"
            )
        RunFolder.create(out, self.plan.model_copy(update={"target": record["flops"]["target"]}), force=False)
        record = record | {"run": str(out)}
        save_network(out / "network", self.network.cpu(), about=about(record, self.data.classes))
        write_record(out, record)

    def measure(self, target: float | None = None) -> dict[str, Any]:
        """Measure on the test images; `target` is the budget that was met, by default the run's own."""
        started = time.perf_counter()
        network, test, seed = self.network, self.data.test, self.seed
        measured = evaluate(network, test, self.costs, gate=gates[self.inference], seed=seed)
        order = torch.randperm(len(measured.routes), generator=torch.Generator().manual_seed(seed))
        shuffled = evaluate(network, test, self.costs, routes=measured.routes[order])
        # What a network was made of is not kept with it.
        before = measured.accuracy if self.record["method"] == "dense" else known_dense(self.record, self.data)
        return run_record(
            str(self.path),
            network,
            measured,
            data=self.data.name,
            split="test",
            dense_accuracy=before,
            dense_flops=self.record["flops"]["dense"],
            target=self.record["flops"]["target"] if target is None else target,
            met_on=len(self.data.val),
            seconds=time.perf_counter() - started,
            environment=self.machine.environment(),
            shuffled_accuracy=shuffled.accuracy,
            seed=seed,
            inference=self.inference,
            validation=self.data.val_origin,
            **{key: self.record[key] for key in KEPT if key in self.record},
            **described_exits(network, test, self.costs),
        )


def cost_table(model: str | Path, classes: int | None = None, input_size: int | None = None) -> CostTable:
    """Measure a network by name, with fully connected routers if it has units to skip, or a run's network."""
    if isinstance(model, Path):
        return CostTable.measure(load_run(model))
    size = None if input_size is None else (3, input_size, input_size)
    view = build(spec_of(model, num_classes=classes, input_size=size))
    return CostTable.measure(convert(view, [Skip()] if any(unit.skippable for unit in view.units) else []))
