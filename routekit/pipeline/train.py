"""The walk down the way of the data: load, convert, train, evaluate, save. `run` begins it, `resume` goes on."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.unit import Backbone
from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.evaluation.second_look import try_again
from routekit.files import alone
from routekit.formats.checkpoint import save_network
from routekit.junctions.again import look_again
from routekit.junctions.convert import convert
from routekit.macs import describe
from routekit.network.network import RoutedNetwork
from routekit.pipeline.build import network_of
from routekit.pipeline.inputs import Inputs, load_inputs, view_of_run
from routekit.pipeline.join import check_smaller, join_behind
from routekit.pipeline.machine import Machine
from routekit.pipeline.plan import needed_by, resolve
from routekit.pipeline.record import about, described_exits, looks, run_record, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.run_plan import RunPlan
from routekit.recipe import Recipe
from routekit.report.record import read_record
from routekit.routing.gate import gates
from routekit.training.trainer import Trainer


def prepare(recipe: Recipe, machine: Machine) -> tuple[RunPlan, Inputs]:
    """Load what a recipe names, and resolve it: what `run` begins with, and all that a dry run does.

    Raises InputError for what is wrong with it, first for what can be said before anything is loaded.
    """
    early = resolve(recipe)
    inputs = load_inputs(early, machine.hooks)
    plan = resolve(recipe, inputs.facts)
    check_smaller([*map(Path, plan.smaller)], plan.spec.input_size, inputs.data.classes)
    return plan, inputs


def run(recipe: Recipe, path: Path, machine: Machine, *, force: bool = False) -> dict[str, Any]:
    """Carry out a recipe in a new run folder.

    Where the recipe needs a dense network that fits the data and none is given, that is trained first. Everything the
    user gave is checked before the folder is made.

    Args:
        recipe: The choices.
        path: The folder.
        machine: Where it runs.
        force: Whether an old run at `path` is replaced.

    Returns:
        The run's record; of several processes, only the first one gets it, the others an empty one.

    Raises:
        InputError: Something that the user gave is wrong.
        TrainingError: Training cannot go on.
    """
    needs = [Path(needed) for needed in needed_by(recipe)]
    RunFolder.check_free(path, force=force, needs=needs)
    plan, inputs = prepare(recipe, machine)
    for note in plan.notes:
        machine.hooks.say(note)
    folder = _create(path, plan, machine, force=force)
    with _alone(folder, machine):
        if folder.finished:  # another process has just done it
            return read_record(path)
        return _carry_out(plan, inputs, folder, machine)


def resume(path: Path, machine: Machine) -> dict[str, Any]:
    """Carry a run that was stopped to its end, as its plan says; of a finished one, return the record."""
    folder, plan = RunFolder.open(path)
    if plan.method == "cascade" and not folder.finished:
        raise InputError(f"{path} was not joined to its end, and holds nothing: join it again, with --force")
    if folder.finished:
        return read_record(path)
    with _alone(folder, machine):
        if folder.finished:  # another process has just done it
            return read_record(path)
        return _carry_out(plan, load_inputs(plan, machine.hooks), folder, machine)


@contextmanager
def _alone(folder: RunFolder, machine: Machine) -> Iterator[None]:
    """Let nobody else go on with a run meanwhile; the processes that train it together are one."""
    accelerator = machine.accelerator()
    with alone(folder.path, machine.hooks.say) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        yield


def _create(path: Path, plan: RunPlan, machine: Machine, *, force: bool) -> RunFolder:
    """Make the folder, once for all processes, when all have seen that it can be made."""
    accelerator = machine.accelerator()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        RunFolder.create(path, plan, force=force)
    accelerator.wait_for_everyone()
    return RunFolder(path)


def _carry_out(plan: RunPlan, inputs: Inputs, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Train what the plan says; smaller networks that come before it join it then."""
    if not plan.smaller:
        return _train(plan, inputs, folder, machine)
    trained = _within(folder.last, plan.as_last(train=inputs.untrained), inputs, machine)
    accelerator, record = machine.accelerator(), dict[str, Any]()
    if accelerator.is_main_process:
        record = join_behind(plan, folder, inputs.data, machine, trained)
    accelerator.wait_for_everyone()
    return record


def _within(folder: RunFolder, plan: RunPlan, inputs: Inputs, machine: Machine) -> dict[str, Any]:
    """Carry out a run that another one needs, inside its folder, unless that is done; returns its record."""
    accelerator = machine.accelerator()
    if accelerator.is_main_process and not folder.begun:
        RunFolder.create(folder.path, plan, force=False)
    accelerator.wait_for_everyone()
    return read_record(folder.path) if folder.finished else _train(plan, inputs, folder, machine)


def _train(plan: RunPlan, inputs: Inputs, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Carry a run to its end, from wherever its folder stands."""
    hooks = machine.hooks
    accelerator = machine.accelerator()
    data, view = inputs.data, inputs.view
    seconds_before = 0.0
    if plan.dense_first:
        view = _train_dense_first(plan, inputs, folder, machine)
        seconds_before = read_record(folder.dense.path)["seconds"] if accelerator.is_main_process else 0.0
    # Training changes the network in place: this copy is the reference, and the teacher.
    original = copy.deepcopy(convert(view))
    network = network_of(plan, view)
    costs, whole = CostTable.measure(network), CostTable.measure(original).dense
    if plan.target is not None:
        deciding = [f"{len(network.junctions)} units"] + [f"{len(network.stops)} stops"] * bool(network.stops)
        hooks.say(f"target {describe(plan.target)} of {describe(whole)} dense, {', '.join(deciding)}")
    trainer = Trainer(
        network,
        data,
        costs,
        plan.training,
        plan.objective,
        target=costs.dense if plan.target is None else plan.target,
        accelerator=accelerator,
        seed=plan.seed,
        teacher=None if plan.method == "dense" or plan.from_scratch else original,
        folder=folder.path,
        on_step=hooks.on_step,
        say=hooks.say,
    )
    trainer.fit()
    network, found = _looking(plan, network, data.val, machine)
    costs = CostTable.measure(network) if network.looks_again else costs
    record: dict[str, Any] = {}
    if accelerator.is_main_process:
        measured = evaluate(network, data.test, costs, gate=gates[plan.inference], seed=plan.seed)
        record = run_record(
            str(folder.path),
            network,
            measured,
            data=data.name,
            split="test",
            dense_accuracy=_dense_accuracy(
                plan, network, original, data.test, costs, measured.accuracy, accelerator.device
            ),
            dense_flops=whole,
            target=plan.target,
            met_on=len(data.val),
            seconds=seconds_before + trainer.seconds,
            environment=machine.environment(),
            method=plan.method,
            seed=plan.seed,
            epochs=plan.training.epochs,
            inference=plan.inference,
            validation=data.val_origin,
            **(_decides(plan) | found),
            **described_exits(network, data.test, costs),
        )
        save_network(folder.path / "network", network, about=about(record, data.classes))
        write_record(folder.path, record)
    accelerator.wait_for_everyone()
    return record


def _dense_accuracy(
    plan: RunPlan,
    network: RoutedNetwork,
    original: RoutedNetwork,
    test: Images,
    costs: CostTable,
    accuracy: float,
    device: torch.device,
) -> float:
    """The accuracy of the dense network; where there never was one, of this one if everything runs."""
    if plan.method == "dense":
        return accuracy
    if plan.from_scratch:
        everything = torch.ones(len(test), len(network.columns), dtype=torch.bool)
        return evaluate(network, test, costs, routes=everything).accuracy
    return evaluate(original.to(device), test, CostTable.measure(original)).accuracy


def _looking(
    plan: RunPlan, network: RoutedNetwork, images: Images, machine: Machine
) -> tuple[RoutedNetwork, dict[str, Any]]:
    """Let a network look again, if it is to and that pays on validation images; also what the record says of it."""
    if not plan.second_look:
        return network, {}
    assert plan.target is not None
    network, found = try_again(network, look_again(network), images, plan.target)
    machine.hooks.say(
        f"{'looks again' if found.pays else 'does not look again'}: {100 * found.again:.2f}% of the validation images "
        f"are answered rightly with a second look, {100 * found.once:.2f}% without, at the same cost"
    )
    return network, looks(network, found, plan.kinds)


def _decides(plan: RunPlan) -> dict[str, Any]:
    """What a routed network decides, by which policy it stops, and how it was pruned before, for its record."""
    if plan.method != "routed":
        return {}
    pruned = {} if plan.pruned is None else {"pruning": plan.pruned.method}
    return pruned | {"junctions": plan.kinds, "policy": plan.policy}


def _train_dense_first(plan: RunPlan, inputs: Inputs, folder: RunFolder, machine: Machine) -> Backbone:
    """Fine-tune the dense network inside the run's folder, or take it from there if that is done."""
    dense_folder = folder.dense
    if not dense_folder.finished:
        machine.hooks.say(
            f"no weights of {plan.model} for {inputs.data.name} are at hand: training the dense network first "
            f"({plan.dense.epochs:g} epochs, as `routekit finetune` does), into {dense_folder.path}"
        )
        record = _within(dense_folder, plan.as_dense(train=True), inputs, machine)
        if record:
            machine.hooks.say(f"the dense network has {100 * record['accuracy']['dense']:.2f}% on test")
    return view_of_run(dense_folder.path, plan, inputs.data.classes)
