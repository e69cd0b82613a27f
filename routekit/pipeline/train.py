"""The walk down the way of the data: load, convert, train, evaluate, save. `run` begins it, `resume` goes on."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from routekit.backbones.unit import Backbone
from routekit.baselines.pruning import prunings
from routekit.cost.model import CostModel
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.evaluation.evaluate import dense_accuracy, evaluate
from routekit.evaluation.second_look import try_again
from routekit.export.checkpoint import load_network, save_network
from routekit.files import alone
from routekit.macs import describe
from routekit.network.cascade import Cascade
from routekit.network.convert import dense
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.pipeline.build import dense_of, last_of, looking_once, network_of, settled, spec_of_recipe, target_of
from routekit.pipeline.check import check
from routekit.pipeline.inputs import Inputs, load_inputs, view_of_run
from routekit.pipeline.join import check_smaller, meet
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import about, described_exits, run_record, told, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe
from routekit.report.record import read_record
from routekit.routing.gate import gates
from routekit.training.trainer import Trainer


def run(recipe: Recipe, path: Path, machine: Machine, *, force: bool = False) -> dict[str, Any]:
    """Carry out a recipe in a new run folder at `path`; returns the run's record.

    Where the recipe needs a dense network that fits the data and none is given, that is trained first. Everything the
    user gave is checked before the folder is made. Raises InputError for what is wrong with it, TrainingError if
    training cannot go on. Of several processes, only the first one gets a record, the others an empty one.
    """
    RunFolder.check_free(path, force=force, needs=[Path(needed) for needed in (recipe.model.weights, *recipe.smaller)])
    given, recipe = recipe, settled(recipe)
    check(recipe)
    inputs = _load(recipe, machine)
    if given.pruning is not None and recipe.pruning is None:
        machine.hooks.say(f"not pruned: that is for budgets under {given.prunes_below:.0%} (pruning.below)")
    if "again" in given.junctions and "again" not in recipe.junctions and not recipe.smaller:
        machine.hooks.say(f"does not look again: not for budgets under {given.prunes_below:.0%} (pruning.below)")
    if "again" in recipe.junctions and not _mirrored(inputs):
        machine.hooks.say(f"does not look again: images of {inputs.data.name} are not mirrored in training, either")
        recipe = looking_once(recipe)
    folder = _create(path, recipe, machine, force=force)
    with _alone(folder, machine):
        if folder.finished:  # another process has just done it
            return read_record(path)
        return _carry_out(recipe, inputs, folder, machine)


def resume(path: Path, machine: Machine) -> dict[str, Any]:
    """Carry a run that was stopped to its end; of a finished one, return the record."""
    folder, recipe = RunFolder.open(path)
    if recipe.method == "cascade" and not folder.finished:
        raise InputError(f"{path} was not joined to its end, and holds nothing: join it again, with --force")
    if folder.finished:
        return read_record(path)
    with _alone(folder, machine):
        if folder.finished:  # another process has just done it
            return read_record(path)
        return _carry_out(recipe, _load(recipe, machine), folder, machine)


@contextmanager
def _alone(folder: RunFolder, machine: Machine) -> Iterator[None]:
    """Let nobody else go on with a run meanwhile; the processes that train it together are one."""
    accelerator = machine.accelerator()
    with alone(folder.path, machine.hooks.say) if accelerator.is_main_process else nullcontext():
        accelerator.wait_for_everyone()
        yield


def _load(recipe: Recipe, machine: Machine) -> Inputs:
    """Load what the recipe names, and see that smaller networks fit it before anything is trained for them."""
    inputs = load_inputs(recipe, machine.hooks)
    check_smaller([*map(Path, recipe.smaller)], spec_of_recipe(recipe).input_size, inputs.data.classes)
    if recipe.smaller and inputs.untrained and recipe.dense.epochs == 0:
        raise InputError("the last network of this cascade would come from no dense one: dense.epochs is 0")
    return inputs


def _mirrored(inputs: Inputs) -> bool:
    """Whether an image and its mirror image are of the same class, as far as training goes."""
    return inputs.data.augmentation.flip and not inputs.data.augmentation.unflipped


def _create(path: Path, recipe: Recipe, machine: Machine, *, force: bool) -> RunFolder:
    """Make the folder, once for all processes, when all have seen that it can be made."""
    accelerator = machine.accelerator()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        RunFolder.create(path, recipe, force=force)
    accelerator.wait_for_everyone()
    return RunFolder(path)


def _carry_out(recipe: Recipe, inputs: Inputs, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Train what the recipe says; smaller networks that come before it join it then."""
    if not recipe.smaller:
        return _train(recipe, inputs, folder, machine)
    trained = _within(folder.last, last_of(recipe, untrained=inputs.untrained), inputs, machine)
    accelerator, record = machine.accelerator(), dict[str, Any]()
    if accelerator.is_main_process:
        paths = [*map(Path, recipe.smaller), folder.last.path]
        cascade = Cascade([load_network(path) for path in paths], rule=recipe.cascade.rule, average=True)
        record = meet(cascade, paths, recipe, inputs.data, machine, lambda: folder, trained)
    accelerator.wait_for_everyone()
    return record


def _within(folder: RunFolder, recipe: Recipe, inputs: Inputs, machine: Machine) -> dict[str, Any]:
    """Carry out a run that another one needs, inside its folder, unless that is done; returns its record."""
    accelerator = machine.accelerator()
    if accelerator.is_main_process and not folder.begun:
        RunFolder.create(folder.path, recipe, force=False)
    accelerator.wait_for_everyone()
    return read_record(folder.path) if folder.finished else _train(recipe, inputs, folder, machine)


def _train(recipe: Recipe, inputs: Inputs, folder: RunFolder, machine: Machine) -> dict[str, Any]:
    """Carry a run to its end, from wherever its folder stands."""
    hooks = machine.hooks
    accelerator = machine.accelerator()
    data, view = inputs.data, inputs.view
    seconds_before = 0.0
    from_scratch = inputs.untrained and recipe.dense.epochs == 0
    if inputs.untrained and recipe.method != "dense" and not from_scratch:
        view = _train_dense_first(recipe, inputs, folder, machine)
        seconds_before = read_record(folder.dense.path)["seconds"] if accelerator.is_main_process else 0.0
    # Training changes the network in place: this copy is the reference, and the teacher.
    original = copy.deepcopy(dense(view))
    target = None if recipe.target is None else target_of(recipe, view)
    network = network_of(recipe, view, target)
    costs, whole = CostModel.measure(network), CostModel.measure(original).dense
    if target is not None:
        deciding = [f"{len(network.junctions)} units"] + [f"{len(network.exits)} exits"] * bool(network.exits)
        hooks.say(f"target {describe(target)} of {describe(whole)} dense, {', '.join(deciding)}")
    trainer = Trainer(
        network,
        data,
        costs,
        replace(recipe.training, frozen=recipe.freezes and not from_scratch),
        _objective(recipe),
        target=costs.dense if target is None else target,
        accelerator=accelerator,
        seed=recipe.seed,
        teacher=None if recipe.method == "dense" or from_scratch else original,
        folder=folder.path,
        on_step=hooks.on_step,
        say=hooks.say,
    )
    trainer.fit()
    network, looks = _looking(recipe, network, data.val, target, machine)
    costs = CostModel.measure(network) if network.looks_again else costs
    record: dict[str, Any] = {}
    if accelerator.is_main_process:
        measured = evaluate(network, data.test, costs, gate=gates[recipe.inference], seed=recipe.seed)
        if from_scratch:  # there never was a dense network: what this one answers if everything runs
            everything = torch.ones(len(data.test), len(network.columns), dtype=torch.bool)
            before = evaluate(network, data.test, costs, routes=everything).accuracy
        else:
            before = dense_accuracy(original.backbone.to(accelerator.device), network, data.test)
        record = run_record(
            str(folder.path),
            network,
            measured,
            data=data.name,
            split="test",
            dense_accuracy=measured.accuracy if recipe.method == "dense" else before,
            dense_flops=whole,
            target=target,
            met_on=len(data.val),
            seconds=seconds_before + trainer.seconds,
            environment=machine.environment(),
            method=recipe.method,
            seed=recipe.seed,
            epochs=recipe.training.epochs,
            inference=recipe.inference,
            validation=data.val_origin,
            **(_decides(recipe) | looks),
            **described_exits(network, data.test),
        )
        save_network(folder.path / "network", network, about=about(record, data.classes))
        write_record(folder.path, record)
    accelerator.wait_for_everyone()
    return record


def _looking(
    recipe: Recipe, network: RoutedNetwork, images: Images, target: float | None, machine: Machine
) -> tuple[RoutedNetwork, dict[str, Any]]:
    """Let a network look again, if it is to and that pays on validation images; also what the record says of it."""
    if "again" not in recipe.junctions:
        return network, {}
    assert target is not None
    network, found = try_again(network, images, target)
    machine.hooks.say(
        f"{'looks again' if found.pays else 'does not look again'}: {100 * found.again:.2f}% of the validation images "
        f"are answered rightly with a second look, {100 * found.once:.2f}% without, at the same cost"
    )
    return network, told(network, found, recipe.junctions)


def _objective(recipe: Recipe) -> ObjectiveWeights:
    """What is minimised: features of other channels than the teacher's cannot be matched with them."""
    method = recipe.method if recipe.pruning is None else recipe.pruning.method
    if method in prunings and prunings[method].coupled:
        return replace(recipe.objective, feature_distillation=0.0)
    return recipe.objective


def _decides(recipe: Recipe) -> dict[str, Any]:
    """What a routed network decides, by which policy it stops, and how it was pruned before, for its record."""
    if recipe.method != "routed":
        return {}
    learned = recipe.exits.rule == "learned"
    policy = recipe.objective.policy.kind if learned else recipe.exits.rule
    pruned = {} if recipe.pruning is None else {"pruning": recipe.pruning.method}
    return pruned | {"junctions": recipe.junctions, "policy": policy if "exit" in recipe.junctions else None}


def _train_dense_first(recipe: Recipe, inputs: Inputs, folder: RunFolder, machine: Machine) -> Backbone:
    """Fine-tune the dense network inside the run's folder, or take it from there if that is done."""
    dense_folder = folder.dense
    if not dense_folder.finished:
        machine.hooks.say(
            f"no weights of {recipe.model.name} for {inputs.data.name} are at hand: training the dense network first "
            f"({recipe.dense.epochs:g} epochs, as `routekit finetune` does), into {dense_folder.path}"
        )
        record = _within(dense_folder, dense_of(recipe, untrained=True), inputs, machine)
        if record:
            machine.hooks.say(f"the dense network has {100 * record['accuracy']['dense']:.2f}% on test")
    return view_of_run(dense_folder.path, recipe, inputs.data.classes)
