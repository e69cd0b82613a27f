"""How long a comparison will take: by the cells that are done, or else by some steps of training."""

import statistics
import timeit
from collections.abc import Sequence

import torch

from routekit.backbones.load import build
from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.pipeline.inputs import fits, load_splits
from routekit.pipeline.machine import Machine
from routekit.pipeline.plan import resolve
from routekit.report.record import read_record
from routekit.training.precision import use_bf16

# How many steps are timed.
STEPS = 3
# The time of a step over that of the dense network's forward and backward: the teacher and the relaxed sinks add to it.
OVER = 1.6


def estimate(folder: ComparisonFolder, plan: Plan, cells: Sequence[Cell], machine: Machine, at_once: int = 1) -> float:
    """Estimate how long cells take: within a factor of two.

    Args:
        folder: The comparison.
        plan: Its plan.
        cells: The cells to do.
        machine: Where they run.
        at_once: How many of them run at once.

    Returns:
        Seconds.
    """
    took: dict[str, list[float]] = {}
    for cell in plan.cells():
        # With --force, an old run may lie where a cell is to be done anew.
        if cell.trained and cell not in cells and folder.of(cell).finished:
            took.setdefault(cell.method, []).append(float(read_record(folder.of(cell).path)["seconds"]))
    every = [seconds for found in took.values() for seconds in found]
    rest = [cell for cell in cells if cell.trained]
    at_once = min(at_once, len(rest)) or 1
    if every or not rest:  # where a cell is done, the dense network is done, too
        return sum(statistics.fmean(took.get(cell.method, every)) for cell in rest) / at_once
    start, typical = _training(plan, machine)
    return start + typical * len(rest) / at_once


def _training(plan: Plan, machine: Machine) -> tuple[float, float]:
    """Time a few steps of the dense network -> the seconds of its own training, if it is trained, and of a cell's."""
    early = resolve(plan.recipe(plan.dense))
    data = load_splits(early.data, early.spec, early.seed)
    device = machine.accelerator().device
    model = build(early.spec).model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = early.training.batch_size
    x = torch.randn(batch, *early.spec.input_size, device=device).contiguous(memory_format=torch.channels_last)
    bf16 = use_bf16(early.training.precision, device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss: torch.Tensor = model(x).float().square().mean()
        torch.autograd.backward(loss)
        if device.type == "cuda":
            torch.cuda.synchronize()

    epoch = min(timeit.repeat(step, number=1, repeat=STEPS + 1)) / batch * len(data.train)
    untrained = early.weights == "none" or (early.weights == "auto" and not fits(early, data))
    start = epoch * early.dense.epochs if untrained else 0.0
    return start, OVER * epoch * early.training.epochs
