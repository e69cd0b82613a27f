"""What can be had from a run that is done: its measurement, its cost table."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.load import build, spec_of
from routekit.cost.budget import parse_amount, parse_target
from routekit.cost.cascade import CascadeCost, measure_costs
from routekit.cost.model import CostModel
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.calibrate import calibrate, set_price
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.second_look import try_again
from routekit.evaluation.threshold import ask_all
from routekit.export.cascade import load, read_about
from routekit.export.checkpoint import load_network, save_network
from routekit.network.cascade import Cascade
from routekit.network.convert import convert, dense
from routekit.network.network import RoutedNetwork
from routekit.pipeline.analyse import Analysis, analyse
from routekit.pipeline.inputs import check_classes, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import about, described_exits, known_dense, run_record, told, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe
from routekit.report.record import read_record
from routekit.routing.gate import gates

# What a measurement takes over from the run's record: how its network was made.
KEPT = ("method", "pruning", "junctions", "policy", "second_look")


def evaluate_run(path: Path, recipe: Recipe | None, machine: Machine) -> dict[str, Any]:
    """Measure a finished run, or a compact checkpoint on the recipe's data, on the test set; also with routes shuffled.

    "shuffled" gives each image the route of another one: what is lost by it is what the routers know about images.
    """
    return _Subject.load(path, recipe, machine).measure()


def evaluate_curve(
    path: Path,
    recipe: Recipe | None,
    machine: Machine,
    targets: list[str],
    out: Path | None = None,
    *,
    rule: str | None = None,
) -> list[dict[str, Any]]:
    """Measure one network at several budgets, each met on validation images.

    For an adaptive network, whose dial is set, and for a cascade, of networks or of a network with itself, whose
    threshold is; so is that of exits alone, on what they learned for their own budget. Whether it looks again is tried
    for each budget, if it was when the network was made. With `out`, the network is written there as it is set for the
    one target, to be exported or timed. With a `rule`, exits decide by it, and not by what they learned: the same
    classifiers under another policy.
    Raises InputError for a network that was trained for one budget, budgets out of reach, several with `out`, and a
    rule for what has more than exits.
    """
    if out is not None:
        if len(targets) != 1:
            raise InputError(f"--keep takes one network: give one target, not {len(targets)}")
        RunFolder.check_free(out, force=False)
    subject = _Subject.load(path, recipe, machine)
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
    """Find out what a finished run's network does with its test images. Raises InputError for a cascade of networks."""
    subject = _Subject.load(path, None, Machine())
    if isinstance(subject.network, Cascade) or isinstance(subject.costs, CascadeCost):
        raise InputError(f"{path} is a cascade: its networks' own runs have reports")
    return analyse(subject.network, subject.data.test, subject.costs)


@dataclass(frozen=True)
class _Subject:
    """What is measured: a network on its data."""

    path: Path
    recipe: Recipe
    machine: Machine
    network: RoutedNetwork | Cascade
    costs: CostModel | CascadeCost
    data: DataSplits
    record: dict[str, Any]

    @classmethod
    def load(cls, path: Path, recipe: Recipe | None, machine: Machine) -> "_Subject":
        network = load(path)
        record = read_record(path) if (path / "record.json").exists() else read_about(path)["record"]
        if recipe is None:
            _, recipe = RunFolder.open(path)
        # What is carved out of the images is drawn by the seed with which the network was made.
        recipe = recipe.model_copy(update={"seed": record.get("seed", recipe.seed)})
        data = load_splits(recipe, network.spec.input_size)
        check_classes(path, data.classes)
        if record.get("validation") == "test" and data.val_origin != "test" and data.name == record["data"]:
            machine.hooks.warn(
                f"{path} met its budget on some of the test images of {data.name}, which are measured here again: give "
                "the --val-from-test that it was made with"
            )
        network.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(path, recipe, machine, network, measure_costs(network), data, record)

    def decided_by(self, rule: str) -> "_Subject":
        """The same with exits that decide by a rule. Raises InputError where that is not all that is decided."""
        network = self.network
        if isinstance(network, Cascade) or not network.exits or network.junctions:
            raise InputError(f"{network.name} has no exits alone: another policy can decide for those only")
        network.decide_by(rule)
        kind = "exits" if "exit" in self.recipe.junctions else "cascade"
        ruled = replace(getattr(self.recipe, kind), rule=rule)
        recipe = self.recipe.model_copy(update={kind: ruled, "adaptive_cost": None})
        record = self.record | {"policy": rule}
        return replace(self, costs=measure_costs(network), recipe=recipe, record=record)

    def turn(self, target: str) -> tuple["_Subject", float]:
        """Let the network meet a budget on validation images; returns what meets it, and the budget, MACs."""
        network, costs, val = self.network, self.costs, self.data.val
        if isinstance(network, Cascade):
            assert isinstance(costs, CascadeCost)
            wanted = parse_amount(target, self.record["flops"]["dense"])
            network.threshold.fill_(ask_all(network, val, costs).doubts(network).threshold(wanted))
            return self, wanted
        assert isinstance(costs, CostModel)
        # Per cent of what the user came with, which may have been pruned, compacted or folded since.
        wanted = parse_target(target, costs, dense=self.record["flops"]["dense"])
        if network.dial is not None:
            set_price(network, val, costs, wanted)
            return self, wanted
        if network.junctions or not network.exits:
            raise InputError(
                f"{network.name} was trained for one budget: --target-flops is for runs with --adaptive-cost, and for "
                "cascades and exits alone, where a threshold decides"
            )
        if "second_look" not in self.record:
            calibrate(network, val, costs, wanted)
            return self, wanted
        network.look_once()
        calibrate(network, val, CostModel.measure(network), wanted)
        made, found = try_again(network, val, wanted)
        record = self.record | told(made, found, self.record["junctions"])
        return replace(self, network=made, costs=CostModel.measure(made), record=record), wanted

    def keep(self, out: Path, record: dict[str, Any]) -> None:
        """Write the network as it is now, and its record, as a finished run at `out`."""
        network = self.network.cpu()
        if isinstance(network, Cascade):
            raise InputError("a cascade of networks is set by `routekit cascade --target-flops`, which writes it")
        RunFolder.create(
            out, self.recipe.model_copy(update={"target": f"{record['flops']['target']:.0f}"}), force=False
        )
        record = record | {"run": str(out)}
        save_network(out / "network", network, about=about(record, self.data.classes))
        write_record(out, record)

    def measure(self, target: float | None = None) -> dict[str, Any]:
        """Measure on the test images; `target` is the budget that was met, by default the run's own."""
        started = time.perf_counter()
        network, test, seed = self.network, self.data.test, self.recipe.seed
        measured = evaluate(network, test, self.costs, gate=gates[self.recipe.inference], seed=seed)
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
            inference=self.recipe.inference,
            validation=self.data.val_origin,
            **{key: self.record[key] for key in KEPT if key in self.record},
            **({} if isinstance(network, Cascade) else described_exits(network, test)),
        )


def cost_table(model: str | Path, classes: int | None = None, input_size: int | None = None) -> CostModel:
    """The costs of a network by name, with fully connected routers if it has units to skip, or of a run's network."""
    if isinstance(model, Path):
        return CostModel.measure(load_network(model))
    size = None if input_size is None else (3, input_size, input_size)
    view = build(spec_of(model, num_classes=classes, input_size=size))
    return CostModel.measure(convert(view) if any(unit.skippable for unit in view.units) else dense(view))
