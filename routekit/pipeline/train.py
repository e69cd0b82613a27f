"""The way of the data through one run: load, convert, train, evaluate, save. `run` begins, `resume` continues."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from routekit.backbones.unit import Backbone
from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.second_look import try_again
from routekit.files import alone
from routekit.junctions.again import look_again
from routekit.junctions.convert import convert, join
from routekit.macs import describe
from routekit.network.network import RoutedNetwork
from routekit.pipeline.aim import aim_at, at_hand, check_in_time
from routekit.pipeline.build import ladder_of, network_of
from routekit.pipeline.inputs import Inputs, facts_of, load_images, load_inputs, view_of_run
from routekit.pipeline.join import check_smaller, join_behind
from routekit.pipeline.machine import Machine
from routekit.pipeline.plan import check_reach, needed_by, resolve
from routekit.pipeline.record import looks, right_of_all, rising, run_record, write_run
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.pipeline.rungs import Ladder
from routekit.pipeline.track import tracked
from routekit.recipe import Recipe
from routekit.report.record import read_record
from routekit.training.trainer import Trainer


def prepare(recipe: Recipe, machine: Machine) -> tuple[RunPlan, Inputs]:
    """Load what a recipe names, and resolve the recipe: the beginning of `run`, and all of a dry run.

    Args:
        recipe: The choices.
        machine: Where sentences and warnings go.

    Returns:
        The plan, the images and the network.

    Raises:
        InputError: Something in the recipe is wrong. The budget is checked before weights are loaded.
    """
    early = resolve(recipe)
    data = load_images(early, machine.hooks)
    check_reach(resolve(recipe, facts_of(data)), recipe)
    inputs = load_inputs(early, data, machine.hooks)
    plan = resolve(recipe, facts_of(data, untrained=inputs.untrained))
    check_smaller([*map(Path, plan.smaller)], plan.spec.input_size, data.classes)
    if machine.accelerator().num_processes == 1:  # several would time beside each other
        check_in_time(plan, inputs.view, data)
    return plan, inputs


def run(recipe: Recipe, path: Path, machine: Machine, *, force: bool = False) -> dict[str, Any]:
    """Carry out a recipe in a new run folder.

    If the recipe needs a dense network for these images and there is none, that is trained first. All input is checked
    before the folder is made.

    Args:
        recipe: The choices.
        path: The folder.
        machine: Where it runs.
        force: Whether an old run at `path` is replaced.

    Returns:
        The record of the run. Of several processes, all but the first get an empty one.

    Raises:
        InputError: Some input is wrong.
        TrainingError: Training cannot continue.
    """
    RunFolder.check_free(path, force=force, needs=needed_by(recipe))
    plan, inputs = prepare(recipe, machine)
    for note in plan.notes:
        machine.hooks.say(note)
    accelerator = machine.accelerator()
    # The folder is made once, when all processes have found that it can be made.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        RunFolder.create(path, plan, force=force)
    accelerator.wait_for_everyone()
    return _finish(plan, inputs, RunFolder(path), machine)


def resume(path: Path, machine: Machine) -> dict[str, Any]:
    """Complete a run that was stopped, as its plan says.

    Args:
        path: The folder of the run.
        machine: Where it runs.

    Returns:
        The record of the run. A complete run only gives its record.

    Raises:
        InputError: There is no such run, or it is a cascade of finished networks, which is joined again.
        TrainingError: Training cannot continue.
    """
    folder, plan = RunFolder.open(path)
    if folder.finished:
        return read_record(path)
    if plan.method == "cascade":
        raise InputError(f"{path} was not joined to its end, and holds nothing: join it again, with force=True")
    return _finish(plan, None, folder, machine)


def _finish(plan: RunPlan, inputs: Inputs | None, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Complete a run while no other process works on it; load its inputs if there are none yet."""
    with _alone(folder, machine):
        if folder.finished:  # another process has just done it
            return read_record(folder.path)
        if inputs is None:
            inputs = load_inputs(plan, load_images(plan, machine.hooks), machine.hooks)
        if not plan.smaller or plan.aim is not None:
            return _train(plan, inputs, folder, machine)
        trained = _within(folder.last, plan.as_last(train=inputs.untrained), inputs, machine)
        accelerator, record = machine.accelerator(), dict[str, Any]()
        if accelerator.is_main_process:
            record = join_behind(plan, folder, inputs.data, machine, trained)
        accelerator.wait_for_everyone()
        return record


@contextmanager
def _alone(folder: RunFolder, machine: Machine) -> Iterator[None]:
    """Keep other processes from a run meanwhile. The processes that train it together count as one."""
    accelerator = machine.accelerator()
    with alone(folder.path, machine.hooks.say) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        yield


def _within(folder: RunFolder, plan: RunPlan, inputs: Inputs, machine: Machine) -> dict[str, Any]:
    """Carry out a run that another one needs, inside its folder, unless that is complete. Returns its record."""
    accelerator = machine.accelerator()
    if accelerator.is_main_process and not folder.begun:
        RunFolder.create(folder.path, plan, force=False)
    accelerator.wait_for_everyone()
    return read_record(folder.path) if folder.finished else _train(plan, inputs, folder, machine)


def _train(plan: RunPlan, inputs: Inputs, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Complete a run from the state in which its folder is. Returns its record."""
    hooks, accelerator = machine.hooks, machine.accelerator(folder.path)
    data, view = inputs.data, inputs.view
    seconds_before = 0.0
    if plan.dense_first:
        view = _train_dense_first(plan, inputs, folder, machine)
        seconds_before = read_record(folder.dense.path)["seconds"] if accelerator.is_main_process else 0.0
    # Training changes the network in place: this copy is the reference, and the teacher.
    original = copy.deepcopy(convert(view))
    if plan.spec.source == "custom" and plan.method != "dense" and not plan.from_scratch:
        _warn_of_chance(original, data, machine)
    forms = [] if plan.aim is None else ladder_of(plan, view)
    network = join(forms) if len(forms) > 1 else forms[0] if forms else network_of(plan, view)
    costs, whole = CostTable.measure(network), CostTable.measure(original).dense
    if plan.target is not None and plan.aim is None:
        places = {"units": len(network.junctions), "stops": len(network.stops)}
        deciding = " and ".join(
            f"{count} {name.rstrip('s') if count == 1 else name}" for name, count in places.items() if count
        )
        hooks.say(f"target {describe(plan.target)} of {describe(whole)} dense; decided at {deciding or 'no place'}")
    if plan.aim is not None:
        hooks.say(f"aim: {plan.aim.describe()}; {len(plan.forms)} forms beside the dense network")
    trainer = Trainer(
        network,
        data,
        costs,
        plan.training,
        plan.objective,
        target=costs.dense if plan.target is None or forms else plan.target,
        accelerator=accelerator,
        seed=plan.seed,
        teacher=None if plan.method == "dense" or plan.from_scratch else original,
        folder=folder.path,
        on_step=hooks.on_step,
        say=hooks.say,
        inference=plan.inference,
    )
    if len(forms) != 1:  # without forms, the dense network is left as it is
        with tracked(accelerator, folder, plan):
            trainer.fit()
    if plan.aim is not None:
        return _aim(plan, forms, folder, data, machine, seconds_before + trainer.seconds)
    made, record = dict[str, Any](), dict[str, Any]()
    if plan.method == "routed":
        pruned = {} if plan.pruned is None else {"pruning": plan.pruned.method}
        made = pruned | {"junctions": plan.kinds, "policy": plan.policy}
    if plan.second_look:
        network, found = _look_again_if_it_pays(plan, network, data.val, machine)
        costs = CostTable.measure(network)
        made |= found
    if accelerator.is_main_process:
        measured = evaluate(network, data.test, costs, gate=trainer.gate, seed=plan.seed)
        dense_right: Tensor | float = measured.accuracy
        if plan.method != "dense":  # where there never was a dense network, it is this one if everything runs
            dense = network if plan.from_scratch else original.to(accelerator.device)
            dense_right = right_of_all(dense, data.test)
        record = run_record(
            folder.path,
            network,
            measured,
            data,
            costs,
            machine,
            dense=dense_right,
            dense_flops=whole,
            target=plan.target,
            seconds=seconds_before + trainer.seconds,
            method=plan.method,
            seed=plan.seed,
            epochs=plan.training.epochs,
            inference=plan.inference,
            validation=data.val_origin,
            **rising(folder.path, len(data.val)),
            **made,
        )
        write_run(folder.path, network, record, data.classes)
    accelerator.wait_for_everyone()
    return record


def _aim(
    plan: RunPlan,
    forms: list[RoutedNetwork],
    folder: RunFolder,
    data: DataSplits,
    machine: Machine,
    seconds: float,
) -> dict[str, Any]:
    """Write the trained forms of a ladder, and choose from them. Returns the record."""
    accelerator, record = machine.accelerator(), dict[str, Any]()
    if accelerator.is_main_process:
        names = [*(f"{number}-{form.name(plan.dense_cost)}" for number, form in enumerate(plan.forms)), "dense"]
        networks = at_hand(plan) | dict(zip(names, forms, strict=True))
        ladder = Ladder.write(folder.forms, networks, data, machine.hooks, seconds)
        record = aim_at(plan, folder, ladder, machine)
    accelerator.wait_for_everyone()
    return record


def _warn_of_chance(original: RoutedNetwork, data: DataSplits, machine: Machine) -> None:
    """Warn of a user's own network that guesses: only the user knows whether its factory gives trained weights."""
    right, chance = right_of_all(original.to(machine.accelerator().device), data.val), 1 / len(data.classes)
    accuracy = float(right.double().mean())
    if accuracy <= chance + 3 * math.sqrt(chance * (1 - chance) / len(data.val)):
        machine.hooks.warn(
            f"the network answers {100 * accuracy:.1f}% of the validation images rightly, hardly more than chance: if "
            "it is not trained, train it first (`routekit finetune`), and give that run as model.weights"
        )


def _look_again_if_it_pays(
    plan: RunPlan, network: RoutedNetwork, images: Images, machine: Machine
) -> tuple[RoutedNetwork, dict[str, Any]]:
    """Try a second look on validation images -> the better network, and the entries for its record."""
    assert plan.target is not None
    network, found = try_again(network, look_again(network), images, plan.target)
    machine.hooks.say(
        f"{'looks again' if found.pays else 'does not look again'}: {100 * found.again:.2f}% of the validation images "
        f"are answered rightly with a second look, {100 * found.once:.2f}% without, at the same cost"
    )
    return network, looks(network, found, plan.kinds)


def _train_dense_first(plan: RunPlan, inputs: Inputs, folder: RunFolder, machine: Machine) -> Backbone:
    """Train the dense network inside the run's folder, or load it from there if that is done."""
    path = folder.dense.path
    if not folder.dense.finished:
        why = f"no weights of {plan.model} for {inputs.data.name} are at hand"
        if plan.weights not in ("auto", "none"):
            why = f"{plan.weights} was trained for other classes than those of {inputs.data.name}"
        machine.hooks.say(
            f"{why}: training the dense network first ({plan.dense.epochs:g} epochs, as `routekit finetune` does), "
            f"into {path}"
        )
        record = _within(folder.dense, plan.as_dense(train=True), inputs, machine)
        if record:
            machine.hooks.say(f"the dense network has {100 * record['accuracy']['dense']:.2f}% on test")
    return view_of_run(path, plan, inputs.data.classes)
