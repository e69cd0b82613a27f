"""Who carries out the cells: this process, several of them, or an engine that has many machines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from routekit.comparison.cells import Failure, begin, carry_out_all
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import InputError, reason
from routekit.pipeline.machine import Machine
from routekit.registry import Registry

# (folder, plan, cells, machine, how many at once) -> what failed.
Launcher = Callable[[ComparisonFolder, Plan, Sequence[Cell], Machine, int], list[Failure]]

launchers: Registry[Launcher] = Registry("launcher")


@launchers.register("here")
def here(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int) -> list[Failure]:
    """One after the other in this process; with several jobs, in processes of their own, each with its share."""
    jobs = min(jobs, len(cells))
    if jobs <= 1:
        return carry_out_all(folder, plan, cells, machine)
    devices = visible_gpus() if machine.device != "cpu" else []
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(jobs):
        places.put(place)

    def alone(cell: Cell) -> Failure | None:
        place = places.get()  # as many threads as places: there is one
        environment = os.environ | share(place, jobs, devices)
        done = subprocess.run(command(folder, cell, machine), env=environment, capture_output=True, text=True)
        places.put(place)
        return _told(None if done.returncode == 0 else Failure(cell, _reason(cell, done)), cell, machine)

    with ThreadPoolExecutor(jobs) as pool:
        return [found for found in pool.map(alone, cells) if found is not None]


@launchers.register("ray")
def ray(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int) -> list[Failure]:
    """On a Ray cluster: the one that RAY_ADDRESS names, which has to see the same folders, or one embedded here."""
    if find_spec("ray") is None:
        raise InputError("--launcher ray needs ray: pip install 'routekit[ray]'")
    engine: Any = import_module("ray")
    gpus = 1 if machine.device != "cpu" and torch.cuda.is_available() else 0
    place, quiet = Path.cwd(), Machine(machine.device)

    def remote(cell: Cell) -> list[Failure]:
        os.chdir(place)  # the plan's paths may be relative to it
        return carry_out_all(folder, plan, [cell], quiet)

    engine.init(ignore_reinit_error=True, log_to_driver=False)
    # A task runs on one machine: it cannot have more cores than the largest has.
    largest = max(node["Resources"].get("CPU", 1) for node in engine.nodes() if node["Alive"])
    cores = max(1, min(largest, engine.cluster_resources()["CPU"] // jobs))
    task = engine.remote(num_cpus=cores, num_gpus=gpus)(remote)
    waiting = {task.remote(cell): cell for cell in cells}
    found: list[Failure] = []
    while waiting:
        (done,), _ = engine.wait(list(waiting), num_returns=1)
        cell = waiting.pop(done)
        try:
            failures: list[Failure] = engine.get(done)
        except engine.exceptions.RayError as error:  # its worker died, and those that ray tried after it
            failures = [Failure(cell, reason(error))]
        _told(next(iter(failures), None), cell, machine)
        found += failures
    return found


def launch(
    name: str, folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int = 1
) -> list[Failure]:
    """Carry out `cells`, `jobs` at once, by the launcher of that name, once there is a dense network to begin with."""
    if not cells:
        return []
    begin(folder, plan, machine)
    return launchers[name](folder, plan, cells, machine, jobs)


def _told(failure: Failure | None, cell: Cell, machine: Machine) -> Failure | None:
    """Say how it went with a cell that was carried out elsewhere."""
    if failure is None:
        machine.hooks.say(f"{cell.name}: done")
    else:
        machine.hooks.warn(f"{cell.name}: {failure.reason}")
    return failure


def _reason(cell: Cell, done: "subprocess.CompletedProcess[str]") -> str:
    """Why a process did not carry out its cell: what it says, or the last that was heard of it."""
    try:
        return str(json.loads(done.stdout)["failed"][cell.name])
    except (ValueError, KeyError, TypeError):
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}, without a word"])[-1]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def share(place: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """What the job at `place` of `jobs` may use, as environment variables: a GPU, or its part of the CPU's cores.

    With all cores each, they would wait for each other. A caller's own OMP_NUM_THREADS stays as it is.
    """
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}
    threads = max(1, torch.get_num_threads() // jobs)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def command(folder: ComparisonFolder, cell: Cell, machine: Machine) -> list[str]:
    """The command that carries out one cell alone, on whatever machine sees the folder."""
    device = [] if machine.device is None else ["--device", machine.device]
    resumed = ["compare", "--resume", str(folder.path), "--cell", cell.name, *device]
    return [sys.executable, "-m", "routekit_cli.main", *resumed, "--json"]
