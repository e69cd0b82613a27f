"""The benchmark of a finished run: what each runtime and precision makes of it, and of the dense network beside it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.bench.advice import Measured, advise
from routekit.bench.contest import Contest
from routekit.bench.rows import PRECISE, Own, Row, answer_rows, time_rows, write_rows
from routekit.bench.shipped import RUNTIMES, Shipped, check_runtime
from routekit.cost.aim import Aim
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.errors import InputError, RoutekitError, reason
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.pipeline.bench import check_held
from routekit.pipeline.inputs import check_classes, load_inputs, load_run, load_splits
from routekit.pipeline.machine import Hooks, Machine, count_threads
from routekit.pipeline.run_folder import RunFolder, images_for, plan_at
from routekit.pipeline.run_plan import RunPlan
from routekit.pipeline.rungs import CALIBRATION, Ladder, pixels
from routekit.recipe import DataSection
from routekit.registry import nearest
from routekit.report.record import read_record


def benchmark_run(
    path: Path,
    *,
    names: list[str],
    batches: list[int],
    threads: int | None,
    data: DataSection | None,
    images: int | None,
    seconds: float,
    machine: Machine,
) -> dict[str, Any]:
    """Measure a finished run, and the dense network beside it, in each runtime and precision, on the CPU.

    Test images are answered by the files as they are shipped. What to ship is chosen by validation images. Times are
    measured in turns, in a process of its own.
    What cannot be had on this machine is a row that says why.

    Args:
        path: The run, or a compact checkpoint.
        names: The runtimes, names in `bench.shipped.RUNTIMES`; empty for all.
        batches: The batch sizes.
        threads: CPU threads; None for all cores.
        data: Which images; None for the run's own.
        images: How many test images are answered at most; None for all.
        seconds: About how long each is timed at each batch size.
        machine: Where sentences go.

    Returns:
        The report, for JSON.

    Raises:
        InputError: There is no such run or runtime, or a number is out of range.
    """
    started = time.perf_counter()
    used = count_threads(threads)
    if not batches:
        raise InputError("nothing to time: give at least one batch size")
    for name in names:
        if name not in RUNTIMES:
            raise InputError(f"unknown runtime {name!r}: {nearest(name, RUNTIMES)}")
    network, plan = load_run(path), plan_at(path)
    check_held(max(batches), network.spec)
    seed = 0 if plan is None else plan.seed
    splits = load_splits(images_for(path, data), network.spec, seed)
    check_classes(path, splits.classes)
    dense, notes = dense_beside(path, plan, network, splits, machine.hooks)
    order, choosing = (_drawn(each, images, seed) for each in (splits.test, splits.val))
    say = machine.hooks.say
    with TemporaryDirectory() as folder, Contest(used) as contest:
        make = partial(
            Shipped,
            about={"classes": list(splits.classes)},
            calibration=cache(lambda: pixels(splits.train, CALIBRATION, network)),
            say=say,
            source=network.spec if network.spec.source == "custom" else None,
        )
        networks, own = {}, None
        if dense is not None:
            networks["dense"] = make(dense, Path(folder, "dense"))
        if dense is not network:
            kind = "static" if network.is_static else "routed"
            networks[kind] = make(network, Path(folder, kind))
            own = own_passes(path, plan)
        say("writing the files for each runtime")
        rows = write_rows(networks, list(dict.fromkeys(names)) or list(RUNTIMES), own)
        # What torch answers in float32 is what the others are compared with.
        others = [] if "torch" in {row.runtime for row in rows} else write_rows(networks, ["torch"], None, [PRECISE])
        say(f"answering {len(order)} test images and {len(choosing)} validation images")
        tested = answer_rows([*rows, *others], splits.test, order, contest, max(batches))
        valid = answer_rows(rows, splits.val, choosing, contest, max(batches))
        for batch in sorted({*batches}, reverse=True):
            count = sum(row.reason is None for row in rows)
            say(f"measuring the time at batch {batch}: {count} rows, about {count * seconds:.0f} s")
            time_rows(rows, splits.test, order, contest, batch, seconds)
    references = {
        row.network: tested.get(row.name)
        for row in [*rows, *others]
        if (row.runtime, row.precision) == ("torch", PRECISE)
    }
    labels = splits.test.labels[order]
    right = {name: classes == splits.val.labels[choosing] for name, classes in valid.items()}
    return {
        "run": str(path),
        "network": network.name,
        "data": splits.name,
        "images": len(order),
        "validation_images": len(choosing),
        "batches": batches,
        "rows": [_document(row, tested, references[row.network], labels) for row in rows],
        "advice": _advice(rows, right, batches, None if plan is None else plan.aim),
        "notes": [*notes, *_notes(network, rows, own)],
        "versions": {
            name: check_runtime(name) for name in dict.fromkeys(row.runtime for row in rows if row.reason is None)
        },
        "environment": machine.environment() | {"threads": used},
        "seconds": time.perf_counter() - started,
    }


def _drawn(images: Images, count: int | None, seed: int) -> Tensor:
    """The places of so many images, or of all, in a random order."""
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]


def _document(row: Row, tested: Mapping[str, Tensor], reference: Tensor | None, labels: Tensor) -> dict[str, Any]:
    """A row, for JSON, with what it answers to test images."""
    about = {"runtime": row.runtime, "precision": row.precision, "network": row.network}
    if row.reason is not None:
        return about | {"reason": row.reason}
    classes = tested[row.name]
    same = None if reference is None else float((classes == reference).double().mean())
    return about | {
        "accuracy": float((classes == labels).double().mean()),
        "agreement": same,
        "bytes": row.bytes,
        "times": {str(batch): asdict(times) for batch, times in row.times.items()},
    }


def _advice(
    rows: Sequence[Row], right: Mapping[str, Tensor], batches: Sequence[int], aim: Aim | None
) -> list[dict[str, Any]]:
    """What to ship, for each batch size, by validation images. An aim in time is one for its own batch size."""
    found = []
    for batch in batches:
        there = [row for row in rows if row.reason is None and batch in row.times]
        if not there:
            continue
        dense = {row.runtime: row.times[batch].ms for row in there if row.is_reference}
        most_ms = None
        if aim is not None and aim.batch == batch:  # a speed-up is one in the runtime for which it was asked
            most_ms = dense[aim.where] / aim.speedup if aim.speedup is not None and aim.where in dense else aim.ms
        advice = advise(
            [
                Measured(row.name, right[row.name].numpy(), row.times[batch].ms, reference=row.is_reference)
                for row in there
            ],
            most_ms=most_ms,
            most_drop=None if aim is None else aim.max_drop,
        )
        found.append({"batch": batch, "most_ms": most_ms, **asdict(advice)})
    return found


def _notes(network: RoutedNetwork, rows: Sequence[Row], own: Own | None) -> list[str]:
    """Sentences on thresholds."""
    if not network.stops:
        return []
    if own is not None:
        return [
            f"the passes of the run are in {' > '.join(own.precisions)} for {own.runtime}, as they were chosen; in "
            "other precisions and runtimes they have the same thresholds, which `routekit aim` sets anew"
        ]
    if any(row.precision == "int8" and row.network == "routed" and row.reason is None for row in rows):
        return ["thresholds in int8 let as many of some training images go on as in float32"]
    return []


def dense_beside(
    path: Path, plan: RunPlan | None, network: RoutedNetwork, data: DataSplits, hooks: Hooks
) -> tuple[RoutedNetwork | None, list[str]]:
    """Find the dense network from which a run was made.

    Args:
        path: The run, or a checkpoint.
        plan: Its plan; None for a checkpoint.
        network: Its network.
        data: Its images.
        hooks: Where sentences go.

    Returns:
        The dense network, which is `network` itself if the run is of it, and None where only a checkpoint is left; and
        sentences on what stands for it.
    """
    folder = RunFolder(path)
    if plan is None:  # units may have been dropped
        return None, ["this is a checkpoint: the dense network is with the run, which can be compared with it"]
    if plan.method == "dense":
        return network, []
    if plan.aim is not None:
        if [each["form"] for each in read_record(path)["passes"]] == ["dense"]:
            return network, []
        source = plan.spec if plan.spec.source == "custom" else None
        return Ladder(folder.forms, data, hooks, source).network("dense"), []
    if folder.dense.finished:
        return load_run(folder.dense.path), []
    if folder.last.finished:
        return dense_beside(folder.last.path, plan_at(folder.last.path), network, data, hooks)
    if plan.method != "cascade" and not plan.from_scratch:
        if plan.training.frozen and plan.pruned is None and plan.method == "routed":
            return alone(network), []  # its own weights are as they were
        try:
            inputs = load_inputs(plan, data, hooks)
            if not inputs.untrained:
                return convert(inputs.view), []
        except RoutekitError as error:
            hooks.say(f"{reason(error)}: all of the run's own network stands for it")
    what = "the last network of the cascade" if plan.method == "cascade" else "all of the network"
    return alone(network), [f"dense is {what}, where nothing is decided"]


def alone(network: RoutedNetwork) -> RoutedNetwork:
    """The network that answers last, where nothing is decided, as one that can be saved. It shares the modules."""
    return convert(network.without_routing().view).eval()


def own_passes(path: Path, plan: RunPlan | None) -> Own | None:
    """The passes of a ladder as they were chosen; None for another run."""
    if plan is None or plan.aim is None:
        return None
    precisions = tuple(each["precision"] for each in read_record(path)["passes"])
    return Own(plan.aim.where, precisions, RunFolder(path).passes)
