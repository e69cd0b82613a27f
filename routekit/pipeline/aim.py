"""Choose passes of a ladder for an aim: on validation images, by their answers and by the clock."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from routekit.backbones.unit import Backbone
from routekit.baselines.forms import form_of
from routekit.cost.aim import Aim, check_exactness
from routekit.cost.table import CostTable
from routekit.cost.target import parse_amount
from routekit.data.augment import normalize
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.evaluate import Evaluation
from routekit.evaluation.exits import ExitStatistics, exit_statistics
from routekit.evaluation.sequences import Answers, Point, asked
from routekit.faults import explain
from routekit.files import alone, install, scratch, write_text
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.pipeline.by_time import NEAR, Expected, meet
from routekit.pipeline.choice import Choice, place_of
from routekit.pipeline.inputs import check_classes, load_images, load_run
from routekit.pipeline.machine import Hooks, Machine, processor_name
from routekit.pipeline.record import run_record, write_run
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.pipeline.rungs import BATCH, Ladder, check_packages, drawn
from routekit.report.record import RECORD, read_record
from routekit.runtime.drive import Clock

# How many test images are driven at most.
TEST = 4096
FRONTIER = "frontier.json"


def aim_run(path: Path, changes: dict[str, Any], target: str | None, machine: Machine) -> dict[str, Any]:
    """Choose passes of a finished ladder for another aim. Nothing is trained.

    Args:
        path: The run. Its passes, its network and its record are replaced.
        changes: What is other than in the run's last aim, by the names of `Aim`.
        target: A mean cost: "1.5e8", or "50%" of the dense network's; None for none.
        machine: Where it runs.

    Returns:
        The run's new record.

    Raises:
        InputError: It is no finished ladder, or the aim is none, or cannot be met.
    """
    RunFolder.open(path)
    machine.accelerator()  # raises for a device that is not there
    with alone(path, machine.hooks.say):
        folder, plan = RunFolder.open(path)
        if plan.aim is None:
            raise InputError(f"{path} is no ladder: another aim is for what `routekit convert` makes for a time")
        aim = _changed(
            plan.aim, changes if target is None else changes | {"macs": parse_amount(target, plan.dense_cost)}
        )
        check_packages(aim)
        aimed = plan.model_copy(update={"aim": aim, "target": aim.macs})
        return aim_at(aimed, folder, _ladder(folder, plan, machine), machine)


def _changed(aim: Aim, changes: dict[str, Any]) -> Aim:
    """An aim with changes: another want takes the place of the last one. Raises InputError: it is none."""
    wants = {"macs", "ms", "speedup", "max_drop"}
    kept = {name: value for name, value in asdict(aim).items() if name not in wants or not wants & {*changes}}
    try:
        found = Aim(**kept | changes)
    except ValidationError as error:
        faults = [{**fault, "loc": ("aim", *fault["loc"])} for fault in error.errors()]
        raise InputError(explain(faults, {}, RunPlan)) from error
    found.check()
    return found


def _ladder(folder: RunFolder, plan: RunPlan, machine: Machine) -> Ladder:
    """The ladder of a run. Raises InputError: it is not trained, or the images have other classes."""
    ladder = Ladder(
        folder.forms,
        load_images(plan, machine.hooks),
        machine.hooks,
        plan.spec if plan.spec.source == "custom" else None,
    )
    check_classes(folder.forms / list(ladder.forms)[-1], ladder.data.classes)
    return ladder


def aim_at(plan: RunPlan, folder: RunFolder, ladder: Ladder, machine: Machine) -> dict[str, Any]:
    """Choose passes for the aim of a plan, measure them on test images, and write them into the run's folder.

    Args:
        plan: The plan of the run.
        folder: The run's folder.
        ladder: Its forms.
        machine: Where it runs.

    Returns:
        The run's record.

    Raises:
        InputError: The aim cannot be met; what can be is said.
    """
    assert plan.aim is not None
    started = time.perf_counter()
    with Clock(place_of(plan.aim)) as clock, scratch(folder.path) as made:
        choice = Choice.of(ladder, plan.aim, machine, clock)
        point, expected = meet(choice)
        network, record = _measure(choice, point, expected, plan, folder.path, made)
        record |= {"seconds": ladder.seconds + time.perf_counter() - started, "trained_seconds": ladder.seconds}
        _, passes = choice.compose(point, made, record)
        # Without a record, the run is not finished: whoever is interrupted here resumes it, or chooses again.
        (folder.path / RECORD).unlink(missing_ok=True)
        folder.write(plan)
        write_text(folder.path / FRONTIER, json.dumps(choice.table(), indent=1) + "\n")
        if plan.aim.where != "torch":
            install(passes.folder, folder.passes)
        elif folder.passes.exists():
            folder.passes.rename(made / "former")
    write_run(folder.path, network, record, ladder.data.classes)
    return record


def check_in_time(plan: RunPlan, view: Backbone, data: DataSplits) -> None:
    """Check, before anything is trained, that a ladder can meet its aim: by its smallest forms, and networks at hand.

    Args:
        plan: The plan of the run.
        view: The dense network.
        data: The images.

    Raises:
        InputError: All of these take longer than the time that is wanted, a package is not installed, the threads are
            more than the cores, or a network at hand decides something.
    """
    aim = plan.aim
    if aim is None:
        return
    place = place_of(aim)
    check_packages(aim)
    if aim.max_drop is not None:
        check_exactness(aim.max_drop, len(data.val))
    others = at_hand(plan)
    if aim.ms is None and aim.speedup is None:
        return
    smallest = {form.kind: form for form in reversed(plan.forms)}.values()
    made_of = {form.name(plan.dense_cost): form_of(view, form.kind, form.cost) for form in smallest}
    with Clock(place) as clock, TemporaryDirectory() as made:
        networks = others | made_of | {"dense": convert(view)}
        ladder = Ladder.write(Path(made) / "forms", networks, data, Hooks())
        rungs = ladder.rungs(aim)
        times = clock.drive([rung.passes for rung in rungs], drawn(data.val, 4 * BATCH))
    fastest, dense = min(each.mean for each in times), times[-1].mean
    target = dense / aim.speedup if aim.ms is None and aim.speedup else aim.ms
    assert target is not None
    if fastest > (1 + NEAR) * target:
        said = "; ".join(f"{rung.name} takes {each.mean:.3f} ms" for rung, each in zip(rungs, times, strict=True))
        raise InputError(
            f"{target:.3g} ms an image is out of reach in {aim.where} at batch {aim.batch}: {said}. Ask for "
            f"aim.ms={1.1 * fastest:.2g} or more, for a smaller form, or for another runtime"
        )


def at_hand(plan: RunPlan) -> dict[str, RoutedNetwork]:
    """The finished networks that compete with the forms of a ladder, by name.

    Raises:
        InputError: Something is decided in one of them, or it takes images that are normalised otherwise.
    """
    found = {}
    for number, path in enumerate(plan.smaller):
        network = load_run(Path(path))
        if not network.is_static:
            raise InputError(f"smaller={path} decides something: a ladder is made of networks that do not")
        if (network.spec.mean, network.spec.std) != (plan.spec.mean, plan.spec.std):
            raise InputError(f"smaller={path} takes images of another mean or deviation: set data.mean and data.std")
        found[f"smaller-{number}"] = network
    return found


def evaluate_ladder(path: Path, machine: Machine) -> dict[str, Any]:
    """Measure the passes of a finished ladder on its test images again: accuracy and time.

    Args:
        path: The run.
        machine: Where it runs.

    Returns:
        The record of the measurement.

    Raises:
        InputError: It is no finished ladder.
    """
    with alone(path, machine.hooks.say):
        folder, plan = RunFolder.open(path)
        before = read_record(path)
        assert plan.aim is not None
        started = time.perf_counter()
        ladder = _ladder(folder, plan, machine)
        expected = Expected(before["time"]["target_ms"], before["time"]["validation_ms"])
        with Clock(place_of(plan.aim)) as clock, TemporaryDirectory() as made:
            choice = Choice.of(ladder, plan.aim, machine, clock)
            _, record = _measure(choice, choice.point_of(before), expected, plan, path, Path(made))
    return record | {"seconds": time.perf_counter() - started, "trained_seconds": ladder.seconds}


def _measure(
    choice: Choice, point: Point, expected: Expected, plan: RunPlan, path: Path, made: Path
) -> tuple[RoutedNetwork, dict[str, Any]]:
    """Measure a point on test images -> its network, and its record; its passes are written to `made`."""
    data, aim, machine = choice.ladder.data, choice.aim, choice.machine
    network, passes = choice.compose(point, made)
    runtime = passes.open(aim.where)
    costs, labels = CostTable.measure(network), data.test.labels
    answers = [
        runtime(normalize(images, network.spec.mean, network.spec.std))
        for images, _ in data.test.batches(torch.arange(len(data.test)), BATCH)
    ]
    margins = torch.cat([answer.margins for answer in answers])
    correct = torch.cat([answer.logits for answer in answers]).argmax(dim=1) == labels
    routes = margins >= 0
    measured = Evaluation(correct, costs.of_routes(routes), routes, margins, labels)
    machine.hooks.say("measuring the time of test images, each through what it needs, in another process")
    driven, dense = choice.clock.drive([passes, choice.rungs[-1].passes], drawn(data.test, TEST, plan.seed))
    rungs = [choice.rungs[each] for each in point.passes]
    record = run_record(
        path,
        network,
        measured,
        data,
        costs,
        machine,
        dense=torch.from_numpy(choice.tested.of([len(choice.rungs) - 1])[1]),
        dense_flops=plan.dense_cost,
        target=aim.macs,
        seconds=0.0,
        exits=_exits(choice.tested, point, network, routes),
        size={
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "bytes": sum(rung.bytes for rung in rungs),
        },
        method="ladder",
        seed=plan.seed,
        epochs=plan.training.epochs if plan.forms else 0,
        validation=data.val_origin,
        aim=aim.describe(),
        passes=[
            {"form": rung.form, "precision": rung.precision, "macs": rung.macs, "bytes": rung.bytes} for rung in rungs
        ],
        thresholds=list(point.thresholds),
        average=point.average,
        chosen=choice.said(point),
        time={
            **vars(choice.clock.place),
            "machine": processor_name(),
            "target_ms": expected.target,
            "validation_ms": expected.ms,
            "mean_ms": driven.mean,
            **{name: value for name, value in asdict(driven).items() if name != "mean"},
            "dense_ms": dense.mean,
            "speedup": dense.mean / driven.mean,
        },
    )
    return network, record


def _exits(tested: Answers, point: Point, network: RoutedNetwork, routes: Tensor) -> list[ExitStatistics]:
    """What each pass answers of the test images."""
    if len(point.passes) == 1:
        return []
    logits = [
        tested.logits[list(asked(point.passes, place, average=point.average))].float().softmax(dim=2).mean(dim=0)
        for place in range(len(point.passes))
    ]
    classes = torch.stack([each.argmax(dim=1) for each in logits], dim=1)
    return exit_statistics(classes, routes.sum(dim=1), tested.labels, network)
