"""The benchmark of a run, or of a network by name."""

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import ModelSpec
from routekit.bench.bench import bench
from routekit.bench.forms import INT8, Setting, check_installed
from routekit.bench.rates import set_run_rate
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.errors import InputError
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import load_run, load_splits
from routekit.pipeline.machine import Machine, count_threads
from routekit.pipeline.run_folder import images_for, plan_at
from routekit.recipe import DataSection
from routekit.routing.router import RouterConfig

# How many training images say which values features have, for forms in int8.
CALIBRATION = 300
# The most bytes that test images may take: all of them are in memory.
MOST = 2**33


def bench_model(
    model: str,
    *,
    names: list[str],
    batches: list[int],
    threads: int | None,
    run_rate: float | None,
    data: DataSection | None,
    images: int,
    seconds: float,
    compiled: bool,
    machine: Machine,
) -> dict[str, Any]:
    """Time a network, dense and routed.

    Args:
        model: A run, a compact checkpoint, or the name of a network.
        names: The runtimes.
        batches: The batch sizes.
        threads: CPU threads; None for all cores.
        run_rate: For a network by name: the share of images that run each unit.
        data: Which images; None for the run's own, or the digits.
        images: How many test images are used.
        seconds: About how long each comparison takes.
        compiled: Whether torch.compile is tried.
        machine: Where it runs.

    Returns:
        The report, for JSON.

    Raises:
        InputError: There is no such network or runtime, or a number is out of range.
    """
    started = time.perf_counter()
    used = count_threads(threads)
    if not names or not batches:
        raise InputError("nothing to time: give at least one runtime and one batch size")
    for name in names:
        check_installed(name)
    device = machine.accelerator().device
    network, data_set, seed = subject(model, run_rate, data)
    x = draw(data_set.test, max(images, *batches), network.spec, seed)
    if run_rate is not None:
        set_run_rate(network, x[:256], run_rate)
    calibration, train = None, data_set.train
    if any(name.endswith(INT8) for name in names):
        calibration = draw(train, min(CALIBRATION, len(train)), network.spec, seed)
    dropped = sum(unit.dropped for unit in network.view.units)
    if dropped:
        machine.hooks.say(f"{dropped} units were dropped from {model}: the dense network here is without them")
    before = torch.get_num_threads()
    torch.set_num_threads(used)
    try:
        with TemporaryDirectory() as folder:
            setting = Setting(device, used, compiled, Path(folder), machine.hooks.say, calibration)
            measured = bench(network, x, names=names, batches=batches, setting=setting, seconds=seconds)
        environment = machine.environment()
    finally:
        torch.set_num_threads(before)
    return {
        "model": model,
        "network": network.name,
        "data": data_set.name,
        "images": len(x),
        "run_rate": run_rate,
        "flops": {"convention": CONVENTION, "dense": measured.dense, "realized": measured.kept * measured.dense},
        **measured.to_dict(),
        "environment": environment,
        "seconds": time.perf_counter() - started,
    }


def subject(model: str, run_rate: float | None, data: DataSection | None) -> tuple[RoutedNetwork, DataSplits, int]:
    """Load what is timed.

    Args:
        model: A run, a checkpoint, or the name of a network.
        run_rate: For a network by name: the share of images that run each unit.
        data: Which images; None for the run's own, or the digits.

    Returns:
        The network, the images, and the seed of the run.

    Raises:
        InputError: A run with a rate, a name without one, or images that are not there.
    """
    path, seed = Path(model), 0
    if path.exists():
        if run_rate is not None:
            raise InputError("--run-rate is for a network by name; a run has its own routes")
        network, data, plan = load_run(path), images_for(path, data), plan_at(path)
        seed = 0 if plan is None else plan.seed
    else:
        if run_rate is None:
            raise InputError(f"{model} is no run: give a run's folder, or a network's name with --run-rate 30%")
        network = convert(build(spec_of(model)), [Skip()], routers=RouterConfig(hidden=32)).eval()
    return network, load_splits(data or DataSection(), network.spec, seed), seed


def draw(images: Images, count: int, spec: ModelSpec, seed: int) -> Tensor:
    """Draw images in random order; from the beginning again if there are too few.

    Args:
        images: The images.
        count: How many are drawn.
        spec: The network, which defines the normalisation.
        seed: The seed of the order.

    Returns:
        The images, normalised, `[count, C, H, W]`.

    Raises:
        InputError: They take more than `MOST` bytes.
    """
    check_held(count, spec)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    order = order.repeat(-(-count // len(images)))[:count]
    return torch.cat([normalize(x, spec.mean, spec.std) for x, _ in images.batches(order, 64)])


def check_held(count: int, spec: ModelSpec) -> None:
    """Raise InputError if so many images of a network take more than `MOST` bytes."""
    most = MOST // (4 * math.prod(spec.input_size))
    if count > most:
        raise InputError(f"{count} images are too many to hold: of {spec.input_size}, take at most {most}")
