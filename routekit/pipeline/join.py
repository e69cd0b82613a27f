"""Networks that are done, joined to a cascade that meets a budget."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from routekit.cost.budget import parse_amount
from routekit.cost.cascade import CascadeCost
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.know import learn_to_know
from routekit.evaluation.threshold import ask_all
from routekit.export.cascade import save_cascade
from routekit.export.checkpoint import load_network, network_folder, read_spec
from routekit.macs import describe
from routekit.network.cascade import LEARNED, Cascade
from routekit.pipeline.inputs import check_classes, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import about, known_dense, run_record, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe

# So far from its budget, as a share of it, a cascade has missed it on validation images.
MISSED = 0.02


def join(
    paths: list[Path], recipe: Recipe, out: Path, machine: Machine, *, rule: str, average: bool, force: bool = False
) -> dict[str, Any]:
    """Join the networks of runs or checkpoints, the cheapest first, and write the run of a cascade to `out`.

    `recipe` says which images, which seed and the target, as `meet` takes them; nothing is trained. Raises InputError
    for what does not fit together.
    """
    RunFolder.check_free(out, force=force, needs=paths)
    cascade = Cascade([load_network(path) for path in paths], rule=rule, average=average)
    data = load_splits(recipe, cascade.spec.input_size)
    for warning in data.warnings:
        machine.hooks.warn(warning)
    for path in paths:
        check_classes(path, data.classes)
    return meet(cascade, paths, recipe, data, machine, partial(RunFolder.create, out, recipe, force=force))


def meet(
    cascade: Cascade,
    paths: Sequence[Path],
    recipe: Recipe,
    data: DataSplits,
    machine: Machine,
    folder: Callable[[], RunFolder],
    trained: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a cascade meet the recipe's target on validation images, measure it on test images, and write its run.

    Of a target, a percentage is of what the last network costs, or of what it cost before it was pruned. `paths` are
    where the networks lie, `folder` gives the run's once it is needed, and `trained` is the record of the last network,
    if that was made for this cascade. Returns the record. Raises InputError for a target out of reach.
    """
    started = time.perf_counter()
    cascade.to(machine.accelerator().device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    costs = CascadeCost.measure(cascade)
    assert recipe.target is not None
    before = read_spec(network_folder(paths[-1]))["about"].get("record")
    whole = costs.dense if before is None else before["flops"]["dense"]
    target = parse_amount(recipe.target, whole)
    machine.hooks.say(f"target {describe(target)} of {describe(whole)}, what {cascade.networks[-1].name} costs, dense")
    asked = ask_all(cascade, data.val, costs)
    each = asked.costs.mean(dim=0)
    if (each.diff() < 0).any():
        machine.hooks.warn("a network of this cascade is dearer than the one after it: give the cheapest first")
    cascade.cpu()
    if cascade.rule == LEARNED:
        learn_to_know(cascade, asked, target)
    doubts = asked.doubts(cascade)
    cascade.threshold.fill_(doubts.threshold(target))
    off = doubts.cost(float(cascade.threshold)) / target - 1
    if abs(off) > MISSED:
        machine.hooks.warn(
            f"no threshold comes nearer to the budget than {100 * off:+.1f}%: by {cascade.rule}, too many images are "
            "equally certain; try another --rule"
        )
    cascade.to(machine.accelerator().device)
    path = folder().path
    measured = evaluate(cascade, data.test, costs)
    accuracy = None if before is None else known_dense(before, data)
    if accuracy is None and (before is None or before["method"] == "dense"):
        last = cascade.networks[-1]
        everything = torch.ones(len(data.test), len(last.columns), dtype=torch.bool)
        accuracy = evaluate(last, data.test, costs.stages[-1], routes=everything).accuracy
    record = run_record(
        str(path),
        cascade,
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
        seed=recipe.seed,
        epochs=0 if trained is None else trained["epochs"],
        **({} if recipe.pruning is None else {"pruning": recipe.pruning.method}),
        validation=data.val_origin,
        threshold=float(cascade.threshold),
    )
    save_cascade(path / "network", cascade, paths, about=about(record, data.classes))
    write_record(path, record)
    return record


def check_smaller(paths: Sequence[Path], input_size: tuple[int, int, int], classes: Sequence[str]) -> None:
    """Raise InputError for networks that cannot come before one that is yet to be made for such images and classes."""
    for path in paths:
        found = load_network(path).spec.input_size
        if found != input_size:
            raise InputError(f"{path} takes images of {found}, not of {input_size}: no cascade can be made of them")
        check_classes(path, classes)
