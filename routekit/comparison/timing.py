"""How long the networks of a comparison take. One process times all of them in turns."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from routekit.backbones.unit import ModelSpec
from routekit.bench.forms import INT8, Forms, Setting, check_installed, runtimes
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.execution.executor import Answer
from routekit.execution.timing import Call, in_turns
from routekit.files import write_text
from routekit.formats.sections import decides_inside
from routekit.pipeline.bench import CALIBRATION, draw
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.plan import data_of

TIMINGS = "timings.json"
# How many test images are timed at each batch size: with fewer, their routes would cost other than the mean.
IMAGES = {1: 256, 64: 1024}
# How many of them are answered at a time.
ANSWERED = 64
# Roughly how long the forms of one network may compete, in seconds; the fastest counts.
CHOICE = 1.0


class _Environment(BaseModel):
    model_config = ConfigDict(extra="allow")

    device: str


class _Timings(BaseModel):
    runtimes: dict[str, str]
    images: dict[str, Annotated[int, Field(ge=1, le=10**9)]]
    environment: _Environment
    milliseconds: dict[str, dict[str, Annotated[float, Field(gt=0, lt=1e12)]]]
    accuracy: dict[str, dict[str, Annotated[float, Field(ge=0, le=1)]]] = {}


def read_timings(folder: ComparisonFolder) -> dict[str, Any] | None:
    """Read the timings; None if nothing was timed. Raises InputError if the file is damaged."""
    path = folder.path / TIMINGS
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = _Timings.model_validate(parse_json(read_document(path), path)).model_dump()
    except (InputError, ValidationError) as error:
        raise InputError(f"{path} is damaged: delete it, and compare --resume times again") from error
    return found


def check_runtimes(names: Sequence[str]) -> None:
    """Raise InputError if there are no runtimes, or for one that is unknown or not installed."""
    if not names:
        raise InputError("nothing to time in: give at least one runtime, or --no-time")
    for name in names:
        check_installed(name)


def time_cells(folder: ComparisonFolder, plan: Plan, machine: Machine, names: Sequence[str] | None = None) -> None:
    """Time the networks of the first seed on test images, with their own routes, and write `timings.json`.

    In each runtime, all networks are called in turns on the same images. Each runs in its fastest form, which a shorter
    comparison finds first. Forms of torch.compile do not compete: only static networks have one, and it takes minutes.
    Milliseconds are of one image. In int8 networks give other answers, now and then: they answer all test images, too.
    What decides inside of a pass has no int8 form. Nothing is timed if the file holds the same networks and runtimes.

    Args:
        folder: The comparison.
        plan: Its plan.
        machine: Where it runs.
        names: The runtimes. None: those of the last timings, or torch.

    Raises:
        RoutekitError: The file cannot be written.
    """
    done = {cell.name: folder.of(cell) for cell in plan.cells() if cell.seed == plan.seeds[0]}
    runs = {name: run.path for name, run in done.items() if run.finished}
    before = read_timings(folder) or {"runtimes": {}, "milliseconds": {}}
    names = list(before["runtimes"]) or ["torch"] if names is None else names
    if not runs or (before["milliseconds"].keys() == runs.keys() and before["runtimes"].keys() == set(names)):
        return
    gone = [name for name, run in runs.items() if not (run / "network").exists()]
    if gone:
        machine.hooks.warn(f"nothing is timed: the networks of {', '.join(gone)} are not here")
        return
    machine.hooks.say(f"timing {len(runs)} networks in turns")
    networks = {name: load_run(run).eval() for name, run in runs.items()}
    spec, seed = next(iter(networks.values())).spec, plan.seeds[0]
    data = load_splits(data_of(plan.recipe(plan.dense)), spec, seed)
    test, calibration = data.test, None
    if any(name.endswith(INT8) for name in names):
        calibration = draw(data.train, min(CALIBRATION, len(data.train)), spec, seed)
    counts = {batch: min(count, len(test)) for batch, count in IMAGES.items()}
    images = draw(test, max(counts.values()), spec, seed)
    found: dict[str, dict[str, float]] = {name: {} for name in networks}
    accuracy: dict[str, dict[str, float]] = {name: {} for name in networks}
    versions: dict[str, str] = {}
    device, threads = machine.accelerator().device, torch.get_num_threads()
    for runtime in names:
        with TemporaryDirectory() as scratch:
            forms = {}
            for place, (name, network) in enumerate(networks.items()):
                if runtime.endswith(INT8) and decides_inside(network):
                    machine.hooks.say(f"{name} decides inside of a pass: it is not timed in {runtime}")
                    continue
                own = Setting(device, threads, False, Path(scratch, str(place)), machine.hooks.say, calibration)
                made = runtimes[runtime](network, own)
                # A static network competes in the forms without decisions, the others in those with decisions.
                without: dict[str, Any] = {"routed": {}, "single": {}} if network.is_static else {"dense": {}}
                forms[name] = replace(made, **without)
                if runtime.endswith(INT8):
                    accuracy[name][runtime] = _accuracy(forms[name], test, spec)
            if not forms:
                versions[runtime] = "no network runs there"
                continue
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
        "accuracy": accuracy,
    }
    write_text(folder.path / TIMINGS, json.dumps(document, indent=2) + "\n")


def _accuracy(forms: Forms, test: Images, spec: ModelSpec) -> float:
    """The share of test images that a network answers rightly in its only form."""
    (make,) = forms.for_batch(ANSWERED).values()
    call, right = make(), 0
    for images, labels in test.batches(torch.arange(len(test)), ANSWERED):
        answer = cast("Answer", call(normalize(images, spec.mean, spec.std)))
        right += int((answer.logits.argmax(dim=1) == labels).sum())
    return right / len(test)


def _fastest(forms: Forms, batches: Sequence[Tensor]) -> Call:
    made = {name: make() for name, make in forms.for_batch(len(batches[0])).items()}
    tried = in_turns(made, batches[:8], seconds=CHOICE / 3, rounds=1)
    return made[min(tried, key=lambda name: tried[name].typical)]
