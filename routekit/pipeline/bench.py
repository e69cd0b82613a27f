"""The benchmark of a run, or of a network by name."""

import os
import time
from dataclasses import asdict
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
from routekit.bench.serving import bench_serving
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.errors import InputError
from routekit.execution.executor import SparseExecutor
from routekit.execution.fuse import fuse
from routekit.execution.prepare import prepare
from routekit.export.cascade import load
from routekit.macs import CONVENTION
from routekit.network.cascade import Cascade
from routekit.network.convert import convert
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe, load_recipe
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
    clients: int | None,
    machine: Machine,
) -> dict[str, Any]:
    """Time a run, a compact checkpoint, or a network by name whose routers are set to `run_rate`.

    With `clients`, also how that many concurrent clients are served, in torch.
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
    networks = network.networks if isinstance(network, Cascade) else [network]
    if clients is not None and len(networks) > 1:
        raise InputError("--clients serves a single network, not a cascade")
    dropped = sum(unit.dropped for unit in networks[-1].view.units)
    if dropped:
        machine.hooks.say(f"{dropped} units were dropped from {model}: the dense network here is without them")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or cores)
    try:
        with TemporaryDirectory() as folder:
            setting = Setting(device, threads or cores, compiled, Path(folder), machine.hooks.say)
            measured = bench(network, x, names=names, batches=batches, setting=setting, seconds=seconds)
        serving = []
        if clients is not None:
            machine.hooks.say(f"serving {clients} clients")
            executor = SparseExecutor(fuse(prepare(networks[0]).to(device)))
            serving = bench_serving(executor, x, clients=clients, seconds=seconds)
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
        "serving": [asdict(server) for server in serving],
        "environment": environment,
        "seconds": time.perf_counter() - started,
    }


def subject(
    model: str, run_rate: float | None, data: str | None, data_root: str | None = None, *, count: int
) -> tuple[RoutedNetwork | Cascade, Tensor, str]:
    """Find what is to be timed: a network, `count` of its test images, ready for it, and the name of the data.

    `model` is a run, a checkpoint, a cascade, or the name of a network whose routers are then set to `run_rate`.
    Raises InputError for a run with a rate, and a name without one.
    """
    network, recipe = _find(model, run_rate, data, data_root)
    splits = load_splits(recipe, network.spec.input_size)
    images = draw(splits.test, count, network.spec, recipe.seed)
    if run_rate is not None and isinstance(network, RoutedNetwork):
        set_run_rate(network, images[:256], run_rate)
    return network, images, splits.name


def _find(
    model: str, run_rate: float | None, data: str | None, data_root: str | None
) -> tuple[RoutedNetwork | Cascade, Recipe]:
    source = {} if data is None else {"data.source": data}
    path, elsewhere = Path(model), load_recipe("default", source | {"data.root": data_root})
    if path.exists():
        if run_rate is not None:
            raise InputError("--run-rate is for a network by name; a run has its own routes")
        if data is None and not (path / "recipe.yaml").exists():
            raise InputError(f"{path} is no run with a recipe: say which images with --data")
        return load(path), RunFolder.open(path)[1] if data is None else elsewhere
    if run_rate is None:
        raise InputError(f"{model} is no run: give a run's folder, or a network's name with --run-rate 30%")
    return convert(build(spec_of(model)), RouterConfig(hidden=32)).eval(), elsewhere


def draw(images: Images, count: int, spec: ModelSpec, seed: int) -> Tensor:
    """Draw test images, in random order, normalised; again from the beginning if there are too few."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    order = order.repeat(-(-count // len(images)))[:count]
    return torch.cat([normalize(x, spec.mean, spec.std) for x, _ in images.batches(order, 64)])
