"""Find where the time of sparse execution goes.

    python reports/profile_execution.py resnet110 0.28 path/to/cifar10-jpeg --batch 1,8,64

MODEL is a network by name whose routers are set to RATE, and fused for this CPU. The dense form of the same network and
the routed one take turns; then the routed one runs again with a clock around its steps:

  units      the residual blocks, for the images that run them
  routers    pooling the features and asking the routers about them
  gather     taking the images that run a unit out of the batch, and putting them back
  rest       everything else: the stem, the head, Python

Times are medians over batches, milliseconds; the clock itself is in the rest. Prints one JSON document.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from routekit.backbones.unit import ResidualUnit
from routekit.bench.rates import set_run_rate
from routekit.cost.table import CostTable
from routekit.execution import rows as gathering
from routekit.execution.executor import SparseExecutor
from routekit.execution.fuse import fuse
from routekit.execution.prepare import prepare
from routekit.execution.timing import DISTINCT, in_turns
from routekit.pipeline.bench import draw, subject
from routekit.pipeline.machine import Machine
from routekit.recipe import DataSection


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rate", type=float)
    parser.add_argument("data")
    parser.add_argument("--batch", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    network, data, seed = subject(options.model, options.rate, DataSection(source=options.data))
    images = draw(data.test, 512, network.spec, seed)
    if options.rate is not None:
        set_run_rate(network, images[:256], options.rate)
    prepared = prepare(network)
    costs, fast = CostTable.measure(prepared), fuse(prepared)
    dense, routed = SparseExecutor(fast.without_routing()), SparseExecutor(fast)
    rows = []
    for batch in map(int, options.batch.split(",")):
        batches = [part.contiguous(memory_format=torch.channels_last) for part in torch.split(images, batch)][:DISTINCT]
        with torch.inference_mode():
            timings = in_turns({"dense": dense, "routed": routed}, batches, seconds=options.seconds)
            shares = profile(routed, batches, max(7, timings["routed"].calls // 2))
        rows.append(
            {
                "batch": batch,
                "dense_ms": timings["dense"].typical,
                "routed_ms": timings["routed"].typical,
                "ideal_ms": timings["dense"].typical
                * float(costs.of_routes(routed(images).routes).mean() / costs.dense),
                "routed_ms_by_step": shares,
            }
        )
    document = {"model": options.model, "rate": options.rate, "rows": rows, "environment": Machine().environment()}
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


def profile(routed: SparseExecutor, batches: list[torch.Tensor], calls: int) -> dict[str, float]:
    """Run with a clock around the steps; milliseconds a batch, medians."""
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(calls):
        spent: dict[str, float] = defaultdict(float)
        with clocks(routed, spent):
            started = time.perf_counter()
            routed(batches[turn % len(batches)])
            whole = time.perf_counter() - started
        for step in ("units", "routers", "gather"):
            found[step].append(1e3 * spent[step])
        found["rest"].append(1e3 * (whole - sum(spent.values())))
    return {step: statistics.median(values) for step, values in found.items()}


@contextmanager
def clocks(routed: SparseExecutor, spent: dict[str, float]) -> Iterator[None]:
    """Measure, while it lasts, what each kind of step takes."""

    def timed(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = call(*arguments)
            spent[step] += time.perf_counter() - started
            return result

        return run

    routers = routed.network.routers
    with (
        patch.object(gathering, "take", timed("gather", gathering.take)),
        patch.object(gathering, "put", timed("gather", gathering.put)),
        patch.object(routers, "survey", timed("routers", routers.survey)),
        patch.object(ResidualUnit, "take", timed("units", ResidualUnit.take)),
    ):
        yield


if __name__ == "__main__":
    main()
