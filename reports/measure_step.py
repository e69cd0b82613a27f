"""Time a step of routed training against a dense one: same network, batch and process, alternating, medians.

    python reports/measure_step.py resnet56 --batch 128 --steps 15

One copy of each image (M = 1), no distillation; random images in memory, so the data's share is the real one. A routed
step includes its share of the budget controller's measurements on held-out images.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from routekit.backbones.load import build, spec_of
from routekit.cost.table import CostTable
from routekit.data.augment import Augmentation
from routekit.data.image_set import ImageSet
from routekit.data.sources import DataSplits
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.pipeline.machine import Machine
from routekit.recipe import load_recipe
from routekit.training.trainer import Trainer

Batches = Iterator[tuple[Tensor, Tensor]]


def images(count: int, size: int) -> ImageSet:
    """Noise with labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("0123456789"))


def trainer(network: RoutedNetwork, data: DataSplits, batch: int) -> Trainer:
    """Build a trainer with the default recipe's schedule, at the beginning of a long run."""
    config = load_recipe("default", {"training.batch_size": batch, "training.epochs": 1000}).training
    costs = CostTable.measure(network)
    no_distillation = ObjectiveWeights(0.0, 0.0, 0.0)
    return Trainer(network, data, costs, config, no_distillation, target=0.5 * costs.dense, accelerator=Accelerator())


def timed(run: Trainer, batches: Batches) -> float:
    """Milliseconds of one step, the controller's measurement aside."""
    started = time.perf_counter()
    run._train_step(next(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    run.step += 1
    return 1e3 * (time.perf_counter() - started)


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15)
    arguments = parser.parse_args()
    spec = spec_of(arguments.model, num_classes=10)
    size = spec.input_size[1]
    held_out = images(512, size)
    data = DataSplits(
        images(8 * arguments.batch, size), held_out, held_out, "noise", held_out.classes,
        Augmentation.of((size, size), flip=True), "fixed",
    )  # fmt: skip
    runs = {
        "dense": trainer(convert(build(spec)), data, arguments.batch),
        "routed": trainer(convert(build(spec), [Skip()]), data, arguments.batch),
    }
    batches = {name: run.batches.since(0) for name, run in runs.items()}
    for _ in range(2):
        for name, run in runs.items():
            timed(run, batches[name])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.steps):
        for name, run in runs.items():
            times[name].append(timed(run, batches[name]))
    routed = runs["routed"]
    checks = []
    for _ in range(3):
        routed.step = routed.step // routed.config.check_every * routed.config.check_every
        started = time.perf_counter()
        routed.control.check(routed.step)
        checks.append(1e3 * (time.perf_counter() - started))
    median = {name: statistics.median(values) for name, values in times.items()}
    control = statistics.median(checks) / routed.config.check_every
    document = {
        "model": arguments.model,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "dense_ms": median["dense"],
        "routed_ms": median["routed"],
        "control_ms_per_step": control,
        "ratio": (median["routed"] + control) / median["dense"],
        "pairwise_ratios": [round(r / d, 3) for d, r in zip(times["dense"], times["routed"], strict=True)],
        "bf16": routed.bf16,
        "command": " ".join(["python", *sys.argv]),
        "environment": Machine().environment(),
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
