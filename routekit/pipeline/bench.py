"""The benchmark of a run, or of a network by name."""

import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import ModelSpec
from routekit.bench.bench import bench
from routekit.bench.forms import Setting, check_installed
from routekit.bench.rates import set_run_rate
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.run_folder import MARKER, RunFolder
from routekit.recipe import DataSection
from routekit.routing.router import RouterConfig


def bench_model(
    model: str,
    *,
    names: list[str],
    batches: list[int],
    threads: int | None,
    run_rate: float | None,
    data: str | None,
    data_root: str | None,
    images: int,
    seconds: float,
    compiled: bool,
    machine: Machine,
) -> dict[str, Any]:
    """Time a run, a compact checkpoint, or a network by name whose routers are set to `run_rate`.

    Raises InputError for anything that cannot be timed as asked.
    """
    started = time.perf_counter()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise InputError(f"--threads {threads}: this machine has {cores} cores")
    if not names or not batches:
        raise InputError("nothing to time: give at least one runtime and one batch size")
    for name in names:
        check_installed(name)
    device = machine.accelerator().device
    network, x, origin = subject(model, run_rate, data, data_root, count=max(images, *batches))
    dropped = sum(unit.dropped for unit in network.view.units)
    if dropped:
        machine.hooks.say(f"{dropped} units were dropped from {model}: the dense network here is without them")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cores)
    try:
        with TemporaryDirectory() as folder:
            setting = Setting(device, threads or cores, compiled, Path(folder), machine.hooks.say)
            measured = bench(network, x, names=names, batches=batches, setting=setting, seconds=seconds)
        environment = machine.environment()
    finally:
        torch.set_num_threads(before)
    return {
        "model": model,
        "network": network.name,
        "data": origin,
        "images": len(x),
        "run_rate": run_rate,
        "flops": {"convention": CONVENTION, "dense": measured.dense, "realized": measured.kept * measured.dense},
        **measured.to_dict(),
        "environment": environment,
        "seconds": time.perf_counter() - started,
    }


def subject(
    model: str, run_rate: float | None, data: str | None, data_root: str | None = None, *, count: int
) -> tuple[RoutedNetwork, Tensor, str]:
    """Find what is to be timed: a network, `count` of its test images, ready for it, and the name of the data.

    `model` is a run, a checkpoint, a cascade, or the name of a network whose routers are then set to `run_rate`.
    Raises InputError for a run with a rate, and a name without one.
    """
    network, section, seed = _find(model, run_rate, data, data_root)
    splits = load_splits(section, network.spec, seed)
    images = draw(splits.test, count, network.spec, seed)
    if run_rate is not None:
        set_run_rate(network, images[:256], run_rate)
    return network, images, splits.name


def _find(
    model: str, run_rate: float | None, data: str | None, data_root: str | None
) -> tuple[RoutedNetwork, DataSection, int]:
    path, elsewhere = Path(model), DataSection(source=data or "digits", root=data_root)
    if path.exists():
        if run_rate is not None:
            raise InputError("--run-rate is for a network by name; a run has its own routes")
        is_run = (path / MARKER).exists()
        network = load_run(path)
        if data is None and not is_run:
            raise InputError(f"{path} is no run with a plan: say which images with --data")
        plan = RunFolder.open(path)[1] if is_run else None
        section = elsewhere if plan is None or data is not None else plan.data
        return network, section, 0 if plan is None else plan.seed
    if run_rate is None:
        raise InputError(f"{model} is no run: give a run's folder, or a network's name with --run-rate 30%")
    return convert(build(spec_of(model)), [Skip()], routers=RouterConfig(hidden=32)).eval(), elsewhere, 0


def draw(images: Images, count: int, spec: ModelSpec, seed: int) -> Tensor:
    """Draw test images, in random order, normalised; again from the beginning if there are too few."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    order = order.repeat(-(-count // len(images)))[:count]
    return torch.cat([normalize(x, spec.mean, spec.std) for x, _ in images.batches(order, 64)])
