"""Who carries out the cells: this process, several of them, or an engine that has many machines."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from routekit.comparison.cells import Failure, begin, carry_out_all
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.errors import InputError
from routekit.machine import Machine
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
    devices = torch.cuda.device_count() if machine.device != "cpu" else 0

    def alone(place: int, cell: Cell) -> Failure | None:
        environment = os.environ | share(place, jobs, devices)
        done = subprocess.run(command(folder, cell, machine), env=environment, capture_output=True, text=True)
        machine.hooks.say(f"{cell.name}: {'done' if done.returncode == 0 else 'failed'}")
        return None if done.returncode == 0 else Failure(cell, (done.stderr.strip().splitlines() or ["no word"])[-1])

    with ThreadPoolExecutor(jobs) as pool:
        return [found for found in pool.map(alone, range(len(cells)), cells) if found is not None]


@launchers.register("ray")
def ray(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int) -> list[Failure]:
    """On a Ray cluster: the one that RAY_ADDRESS names, which has to see the same folders, or one embedded here."""
    if find_spec("ray") is None:
        raise InputError("--launcher ray needs ray: pip install 'routekit[ray]'")
    engine: Any = import_module("ray")
    gpus = 1 if machine.device != "cpu" and torch.cuda.is_available() else 0
    there, quiet = ComparisonFolder(folder.path.resolve()), Machine(machine.device)

    def remote(cell: Cell) -> list[Failure]:
        return carry_out_all(there, plan, [cell], quiet)

    engine.init(ignore_reinit_error=True, log_to_driver=False)
    task = engine.remote(num_cpus=max(1, engine.cluster_resources()["CPU"] // jobs), num_gpus=gpus)(remote)
    found: list[list[Failure]] = engine.get([task.remote(cell) for cell in cells])
    return [failure for failures in found for failure in failures]


def launch(
    name: str, folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, jobs: int = 1
) -> list[Failure]:
    """Carry out `cells`, `jobs` at once, by the launcher of that name, once there is a dense network to begin with."""
    begin(folder, plan, machine)
    return launchers[name](folder, plan, cells, machine, jobs)


def share(place: int, jobs: int, devices: int) -> dict[str, str]:
    """What the job at `place` of `jobs` may use, as environment variables: a GPU, or its part of the CPU's cores.

    With all cores each, they would wait for each other. A caller's own OMP_NUM_THREADS stays as it is.
    """
    if devices:
        return {"CUDA_VISIBLE_DEVICES": str(place % devices)}
    threads = max(1, torch.get_num_threads() // jobs)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def command(folder: ComparisonFolder, cell: Cell, machine: Machine) -> list[str]:
    """The command that carries out one cell alone, on whatever machine sees the folder."""
    device = [] if machine.device is None else ["--device", machine.device]
    resumed = ["compare", "--resume", str(folder.path), "--cell", cell.name, *device]
    return [sys.executable, "-m", "routekit_cli.main", *resumed]
