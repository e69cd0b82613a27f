"""What is reachable for a network, found out in minutes: nothing is trained, and nothing is kept."""

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from routekit.backbones.unit import Backbone
from routekit.baselines.forms import form_of
from routekit.cost.aim import check_exactness
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.sequences import Point
from routekit.junctions.convert import join
from routekit.macs import CONVENTION
from routekit.pipeline.aim import at_hand
from routekit.pipeline.build import ladder_of
from routekit.pipeline.by_time import fastest
from routekit.pipeline.choice import Choice, place_of
from routekit.pipeline.forms import forms_of
from routekit.pipeline.inputs import Inputs
from routekit.pipeline.machine import Hooks, Machine
from routekit.pipeline.run_plan import Form, RunPlan
from routekit.pipeline.rungs import Ladder, drawn
from routekit.pipeline.train import prepare
from routekit.recipe import Recipe, load_recipe
from routekit.runtime.drive import Clock
from routekit.training.precision import seconds_of_step, use_bf16

# How much accuracy may be lost, in points; and what is usual after training.
DROPS, USUAL = (0.5, 1.0, 2.0, 5.0), 1.0
# How many validation images are driven, and how many images are in the step of training that is timed.
DRIVEN, STEP = 256, 16


def auto(recipe: Recipe, machine: Machine, *, images: int) -> dict[str, Any]:
    """Measure what a trained network can be without training, and say what training would take.

    Args:
        recipe: The choices: a ladder that is not trained, and where its time counts.
        machine: Where it runs.
        images: How many validation and test images are used at most.

    Returns:
        The machine, the data, and rows: each has the `settings` that make it, and what was measured of it.

    Raises:
        InputError: Some input is wrong, or the network is not trained for these images.
    """
    started = time.perf_counter()
    plan, inputs = prepare(recipe, machine)
    if inputs.untrained:
        raise InputError(
            f"{plan.model} is not trained for the classes of {inputs.data.name}: train it first (`routekit finetune`), "
            "and give that run as model.weights"
        )
    assert plan.aim is not None
    data = replace(inputs.data, val=_few(inputs.data.val, images), test=_few(inputs.data.test, images))
    with Clock(place_of(plan.aim)) as clock, TemporaryDirectory() as made:
        names = [form.name(plan.dense_cost) for form in plan.forms]
        networks = at_hand(plan) | dict(zip([*names, "dense"], ladder_of(plan, inputs.view), strict=True))
        ladder = Ladder.write(Path(made) / "forms", networks, data, machine.hooks)
        rows = _untrained(Choice.of(ladder, plan.aim, machine, clock))
        rows += _trained(plan, inputs, clock, Path(made) / "trained", machine.hooks)
    return {
        "model": plan.model,
        "data": _about(inputs.data, data),
        "time": vars(clock.place),
        "macs": plan.dense_cost,
        "convention": CONVENTION,
        "environment": machine.environment(),
        "rows": rows,
        "seconds": time.perf_counter() - started,
    }


def _few(images: Images, most: int) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:most].sort().values)


def _can_tell(images: int, drop: float) -> bool:
    """Whether so many validation images can tell such a loss."""
    try:
        check_exactness(drop, images)
    except InputError:
        return False
    return True


def _about(whole: DataSplits, used: DataSplits) -> dict[str, Any]:
    return {
        "name": whole.name,
        "classes": len(whole.classes),
        "train": len(whole.train),
        "val": len(used.val),
        "test": len(used.test),
    }


def _untrained(choice: Choice) -> list[dict[str, Any]]:
    """The dense network as it is, and the fastest that lose a little: each is faster than those that lose less."""
    images, last = drawn(choice.ladder.data.val, DRIVEN), len(choice.rungs) - 1
    found = dict[Point, float]()
    for drop in filter(partial(_can_tell, len(choice.answers)), DROPS):
        with suppress(InputError):  # all lose more
            found.setdefault(fastest(choice.at(replace(choice.aim, max_drop=drop)), images)[0], drop)
    *times, dense = choice.drive([*found], images)
    whole = Point((last,), (), False, 0.0, 0, (1.0,))
    rows = [_row(choice, whole, dense, dense) | {"settings": None}]
    for (point, drop), ms in zip(found.items(), times, strict=True):
        if ms < rows[-1]["ms"]:
            settings = {"training.epochs": 0, "aim.max_drop": drop}
            rows.append(_row(choice, point, ms, dense) | {"settings": settings, "max_drop": drop})
    return rows


def _row(choice: Choice, point: Point, ms: float, dense: float) -> dict[str, Any]:
    return {
        "passes": [choice.rungs[each].name for each in point.passes],
        "test_accuracy": float(choice.tested.right(point).mean()),
        "validation_accuracy": float(choice.answers.right(point).mean()),
        "ms": ms,
        "speedup": dense / ms,
        "mean_macs": choice.mean_macs(point),
        "bytes": choice.size(point),
    }


def _trained(plan: RunPlan, inputs: Inputs, clock: Clock, made: Path, hooks: Hooks) -> list[dict[str, Any]]:
    """What training takes, and how fast the cheapest form is that is trained then."""
    assert plan.aim is not None
    usual = load_recipe("default")
    forms = forms_of(usual.ladder, plan.spec, plan.dense_cost, usual.training.epochs, [])
    if not forms:
        return []
    minutes = usual.training.epochs * len(inputs.data.train) * _seconds(plan, inputs.view, forms) / 60
    name = forms[0].name(plan.dense_cost)
    networks = {name: form_of(inputs.view, forms[0].kind, forms[0].cost, plan.seed)}
    rungs = Ladder.write(made, networks, inputs.data, hooks).rungs(plan.aim)
    driven = clock.drive([rung.passes for rung in rungs], drawn(inputs.data.val, DRIVEN))
    least, rung = min(zip([each.mean for each in driven], rungs, strict=True), key=lambda each: each[0])
    drop = next((each for each in DROPS if each >= USUAL and _can_tell(len(inputs.data.val), each)), DROPS[-1])
    return [
        {
            "settings": {"training.epochs": epochs, "aim.max_drop": drop},
            "epochs": epochs,
            "minutes": minutes * epochs / usual.training.epochs,
            "least_ms": least,
            "least": rung.name,
        }
        for epochs in (1.0, usual.training.epochs)
    ]


def _seconds(plan: RunPlan, view: Backbone, forms: list[Form]) -> float:
    """The seconds that an image takes in training."""
    network = join(ladder_of(plan.model_copy(update={"forms": forms}), view)).train()
    x = torch.randn(STEP, *plan.spec.input_size).contiguous(memory_format=torch.channels_last)
    bf16 = use_bf16(plan.training.precision, torch.device("cpu"))
    return min(seconds_of_step(network, x, bf16) for _ in range(2)) / STEP
