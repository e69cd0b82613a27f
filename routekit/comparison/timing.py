"""How long the networks of a comparison take, all of them timed in turns in one process."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.bench.forms import Forms, Setting, check_installed, runtimes
from routekit.comparison.method import DENSE
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import InputError
from routekit.execution.timing import Call, in_turns
from routekit.files import write_text
from routekit.network.network import RoutedNetwork
from routekit.pipeline.bench import draw
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.plan import data_of

TIMINGS = "timings.json"
# How many test images are timed at each batch size: with fewer, their routes would cost other than the mean.
IMAGES = {1: 256, 64: 1024}
# Roughly how long the forms of one network may compete, in seconds; the fastest counts.
CHOICE = 1.0


def read_timings(folder: ComparisonFolder) -> dict[str, Any] | None:
    """What was timed, if anything was. Raises InputError for a damaged file."""
    path = folder.path / TIMINGS
    try:
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: delete it, and compare --resume times again") from error
    return found


def _timed(folder: ComparisonFolder, plan: Plan) -> list[Cell]:
    """The cells whose networks are timed: those of the first seed that are done."""
    return [cell for cell in plan.cells() if cell.seed == plan.seeds[0] and folder.of(cell).finished]


def check_runtimes(names: Sequence[str]) -> None:
    """Raise InputError for a runtime that nobody knows or that is not installed, or for none."""
    if not names:
        raise InputError("nothing to time in: give at least one runtime, or --no-time")
    for name in names:
        check_installed(name)


def time_cells(folder: ComparisonFolder, plan: Plan, machine: Machine, names: Sequence[str] | None = None) -> None:
    """Time the networks of the first seed on test images, with their own routes, and write `timings.json`.

    In each runtime of `names` (None for those that they were timed in before, or torch), all of them are called in
    turns on the same images, each in the fastest form that the runtime has for it, which is found by a shorter
    comparison before. Forms of torch.compile do not compete: static networks alone have one, and it takes minutes.
    Milliseconds are of an image. The same is not done twice.
    """
    cells = _timed(folder, plan)
    before = read_timings(folder)
    known = {} if before is None else before["runtimes"]
    names = list(known) or ["torch"] if names is None else names
    wanted = {cell.name for cell in cells}
    if not cells or (before is not None and (set(before["milliseconds"]), set(known)) == (wanted, set(names))):
        return
    gone = [cell.name for cell in cells if not (folder.of(cell).path / "network").exists()]
    if gone:
        machine.hooks.warn(f"nothing is timed: the networks of {', '.join(gone)} are not here")
        return
    machine.hooks.say(f"timing {len(cells)} networks in turns")
    networks = {cell.name: load_run(folder.of(cell).path).eval() for cell in cells}
    spec = next(iter(networks.values())).spec
    seed = plan.seeds[0]
    test = load_splits(data_of(plan.recipe(Cell(DENSE, None, seed))), spec, seed).test
    counts = {batch: min(count, len(test)) for batch, count in IMAGES.items()}
    images = draw(test, max(counts.values()), spec, seed)
    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    versions: dict[str, str] = {}
    device, threads = machine.accelerator().device, torch.get_num_threads()
    for runtime in names:
        with TemporaryDirectory() as scratch:
            forms = {}
            for place, (name, network) in enumerate(networks.items()):
                own = Setting(device, threads, compiled=False, folder=Path(scratch, str(place)), say=machine.hooks.say)
                forms[name] = _competing(network, runtimes[runtime](network, own))
            one = next(iter(forms.values()))
            versions[runtime] = one.version + (" on the CPU" if one.device != device.type else "")
            for batch, count in counts.items():
                parts = torch.split(images[:count].contiguous(memory_format=torch.channels_last), batch)
                batches = [part for part in parts if len(part) == len(parts[0])]
                fastest = {name: _fastest(competing, batches) for name, competing in forms.items()}
                for name, timing in in_turns(fastest, batches, seconds=0).items():
                    found[name][f"{runtime}, batch {batch}"] = timing.typical / len(batches[0])
    document = {
        "runtimes": versions,
        "images": {str(batch): count for batch, count in counts.items()},
        "environment": machine.environment(),
        "milliseconds": found,
    }
    text = json.dumps(document, indent=2) + "\n"
    write_text(folder.path / TIMINGS, text)


def _competing(network: RoutedNetwork, forms: Forms) -> Forms:
    """The forms of a network that compete: of one that decides nothing, those that have nothing to decide."""
    return replace(forms, routed={}, single={}) if network.is_static else replace(forms, dense={})


def _fastest(forms: Forms, batches: Sequence[Tensor]) -> Call:
    made = {name: make() for name, make in forms.for_batch(len(batches[0])).items()}
    tried = in_turns(made, batches[:8], seconds=CHOICE / 3, rounds=1)
    return made[min(tried, key=lambda name: tried[name].typical)]
