"""What carries out the cells: this process, several processes, or an engine with many machines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

from routekit.comparison.cells import begin, carry_out_all
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import reason
from routekit.pipeline.machine import Machine
from routekit.registry import Registry
from routekit.runtime.runtime import need

# (folder, plan, cells, machine, how many at once) -> by name, why a cell failed.
Launcher = Callable[[ComparisonFolder, Plan, Sequence[Cell], Machine, int], dict[str, str]]

launchers: Registry[Launcher] = Registry("launcher")


@launchers.register("here")
def here(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int) -> dict[str, str]:
    """One after the other in this process; with several jobs, in processes of their own, each with its share."""
    jobs = min(jobs, len(cells))
    if jobs <= 1:
        return carry_out_all(folder, plan, cells, machine)
    devices = visible_gpus() if machine.device != "cpu" else []
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(jobs):
        places.put(place)

    def alone(cell: Cell) -> dict[str, str]:
        place = places.get()  # there are as many threads as places
        environment = os.environ | share(place, jobs, devices)
        done = subprocess.run(command(folder, cell, machine), env=environment, capture_output=True, text=True)
        places.put(place)
        return _reported({cell.name: _reason(cell, done)} if done.returncode else {}, cell, machine)

    with ThreadPoolExecutor(jobs) as pool:
        return {name: why for failures in pool.map(alone, cells) for name, why in failures.items()}


@launchers.register("ray")
def ray(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int) -> dict[str, str]:
    """On a Ray cluster: the one that RAY_ADDRESS names, which has to see the same folders, or one embedded here."""
    engine = need("ray", "ray")
    gpus = 1 if machine.device != "cpu" and torch.cuda.is_available() else 0
    place, quiet = Path.cwd(), Machine(machine.device)

    def remote(cell: Cell) -> dict[str, str]:
        os.chdir(place)  # the plan's paths may be relative to it
        return carry_out_all(folder, plan, [cell], quiet)

    engine.init(ignore_reinit_error=True, log_to_driver=False)
    # A task runs on one machine: it cannot have more cores than the largest has.
    largest = max(node["Resources"].get("CPU", 1) for node in engine.nodes() if node["Alive"])
    cores = max(1, min(largest, engine.cluster_resources()["CPU"] // jobs))
    task = engine.remote(num_cpus=cores, num_gpus=gpus)(remote)
    waiting = {task.remote(cell): cell for cell in cells}
    found: dict[str, str] = {}
    while waiting:
        (done,), _ = engine.wait(list(waiting), num_returns=1)
        cell = waiting.pop(done)
        try:
            failures: dict[str, str] = engine.get(done)
        except engine.exceptions.RayError as error:  # its worker died, and so did those that ray tried after it
            failures = {cell.name: reason(error)}
        found |= _reported(failures, cell, machine)
    return found


def launch(
    name: str, folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int = 1
) -> dict[str, str]:
    """Carry out cells, after the dense network that they begin with.

    Args:
        name: The launcher.
        folder: The comparison.
        plan: Its plan.
        cells: The cells.
        machine: Where they run.
        jobs: How many of them run at once.

    Returns:
        Why cells failed, by their names.

    Raises:
        InputError: There is no such launcher, it is not installed, or the dense network cannot be made.
    """
    if not cells:
        return {}
    begin(folder, plan, machine)
    return launchers[name](folder, plan, cells, machine, jobs)


def _reported(failures: dict[str, str], cell: Cell, machine: Machine) -> dict[str, str]:
    """Print the outcome of a cell that was carried out elsewhere, and return it."""
    if cell.name in failures:
        machine.hooks.warn(f"{cell.name}: {failures[cell.name]}")
    else:
        machine.hooks.say(f"{cell.name}: done")
    return failures


def _reason(cell: Cell, done: "subprocess.CompletedProcess[str]") -> str:
    """Find why a process did not carry out its cell: the reason that it gives, or else its last line of errors."""
    try:
        return str(json.loads(done.stdout)["failed"][cell.name])
    except (ValueError, KeyError, TypeError):
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}, without a word"])[-1]


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def share(place: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """Choose what a job may use: a GPU, or its part of the CPU's cores.

    Jobs that use all cores wait for each other. The caller's own OMP_NUM_THREADS stays as it is.

    Args:
        place: The number of the job, from 0.
        jobs: How many jobs run at once.
        devices: The GPUs. Empty: the jobs run on the CPU.

    Returns:
        Environment variables.
    """
    if devices:
        return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]}
    threads = max(1, torch.get_num_threads() // jobs)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def command(folder: ComparisonFolder, cell: Cell, machine: Machine) -> list[str]:
    """Make the command that carries out one cell alone, on any machine that sees the folder.

    Args:
        folder: The comparison.
        cell: The cell.
        machine: Where it runs.

    Returns:
        The program and its arguments.
    """
    device = [] if machine.device is None else ["--device", machine.device]
    resumed = ["compare", "--resume", str(folder.path), "--cell", cell.name, *device]
    return [sys.executable, "-m", "routekit_cli.main", *resumed, "--json"]
