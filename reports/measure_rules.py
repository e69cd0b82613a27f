"""What lifts a ladder without training: another measure of certainty, a temperature for each pass, a second threshold.

    python reports/measure_rules.py runs/ladder-seed0 runs/ladder-seed1 --runtime onnx --precision int8 --out rules.json

For each of many random divisions of a run's validation and test images, sequences and thresholds are chosen on as many
images as it has for validation, for several mean times, and told on the others. A pass costs what it took alone. Gains
are over the ladder's own rule, in points; their errors are over divisions, which share images.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.cost.aim import Aim
from routekit.cost.passes import milliseconds
from routekit.evaluation.sequences import Answers, choose, frontier
from routekit.pipeline.choice import place_of
from routekit.pipeline.inputs import load_images
from routekit.pipeline.machine import Hooks
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.rungs import Ladder
from routekit.runtime.drive import Clock

# The share of the answers that get a rule, for the images of which it is chosen -> the share of right ones elsewhere.
Rule = Callable[[Tensor, Tensor, Tensor, Tensor, Sequence[float], float], float | None]


def searched(rule: str, *, alone: bool = False) -> Rule:
    """The search of the tool, by a measure of certainty; `alone` for static networks."""

    def found(
        seen: Tensor, labels: Tensor, other: Tensor, truth: Tensor, costs: Sequence[float], most: float
    ) -> float | None:
        answers = Answers(seen, labels, rule)
        points = frontier(answers, [milliseconds({1: ms}, 1) for ms in costs])
        point = choose([each for each in points if not alone or len(each.passes) == 1], answers, cost=most)
        return None if point is None else float(Answers(other, truth, rule).right(point).mean())

    return found


def tempered(
    seen: Tensor, labels: Tensor, other: Tensor, truth: Tensor, costs: Sequence[float], most: float
) -> float | None:
    """Each pass at the temperature at which it is best calibrated, on the images that the choice is made on."""
    scales = [_scale(each, labels) for each in seen]
    factors = torch.tensor(scales).view(-1, 1, 1)
    return searched("confidence")(seen * factors, labels, other * factors, truth, costs, most)


def given_up(
    seen: Tensor, labels: Tensor, other: Tensor, truth: Tensor, costs: Sequence[float], most: float, lows: int = 40
) -> float | None:
    """Two passes, two thresholds: images of which the first is least sure stay with its answer. The best of all."""
    own, elsewhere = (Answers(x, y) for x, y in ((seen, labels), (other, truth)))
    best, found = -1, None
    for first in range(len(seen)):
        certainty, right = own.of([first])
        order, count = np.argsort(certainty), len(certainty)
        for second in range(len(seen)):
            go = int(min((most - costs[first]) / costs[second], 1.0) * count)
            if costs[second] <= costs[first] or go <= 0:
                continue
            gains = own.of([second])[1][order].astype(int) - right[order].astype(int)
            total = np.concatenate([[0], gains.cumsum()])
            for low in np.linspace(0, count - go, lows if lows > 1 else 1).astype(int):
                score = right.sum() + total[low + go] - total[low]
                if score > best:
                    ends = (certainty[order[low - 1]] if low else -1.0, certainty[order[low + go - 1]])
                    best, found = score, (first, second, *ends)
    if found is None:
        return None
    first, second, below, above = found
    certainty, right = elsewhere.of([first])
    on = (certainty > below) & (certainty <= above)
    return float(np.where(on, elsewhere.of([second])[1], right).mean())


def one_threshold(
    seen: Tensor, labels: Tensor, other: Tensor, truth: Tensor, costs: Sequence[float], most: float
) -> float | None:
    """The same with one threshold, to compare."""
    return given_up(seen, labels, other, truth, costs, most, lows=1)


RULES: dict[str, Rule] = {
    "the ladder": searched("confidence"),
    "static": searched("confidence", alone=True),
    "entropy": searched("entropy"),
    "a temperature for each pass": tempered,
    "two passes, one threshold": one_threshold,
    "two passes, two thresholds": given_up,
}


def _scale(logits: Tensor, labels: Tensor) -> float:
    """The factor of the logits at which their cross-entropy is least, of a grid."""
    grid = torch.linspace(0.3, 2.0, 86)
    losses = torch.stack([F.cross_entropy(logits.float() * each, labels) for each in grid])
    return float(grid[losses.argmin()])


def main() -> None:
    """Print a table, and write it as JSON where --out says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--times", type=int, default=10, help="divisions of each run's images")
    parser.add_argument("--shares", default="0.3,0.4,0.5,0.6", help="mean times, of the slowest pass")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    aim = Aim(speedup=2, runtime=given.runtime, precision=given.precision)
    gains: dict[str, dict[str, list[float]]] = {name: {} for name in RULES}
    for run in given.runs:
        folder, plan = RunFolder.open(run)
        ladder = Ladder(folder.forms, load_images(plan, Hooks()), Hooks())
        rungs = [rung for rung in ladder.rungs(aim) if rung.precision == given.precision]
        with Clock(place_of(aim)) as clock:
            costs = [ms[1] for ms in ladder.times(ladder.rungs(aim), clock)][: len(rungs)]
        logits = ladder.logits(rungs, given.runtime)
        every = torch.cat([logits["val"], logits["test"]], dim=1)
        labels = torch.cat([ladder.data.val.labels, ladder.data.test.labels])
        generator = torch.Generator().manual_seed(plan.seed)
        for _ in range(given.times):
            order = torch.randperm(len(labels), generator=generator)
            seen, other = order[: len(ladder.data.val)], order[len(ladder.data.val) :]
            for share in given.shares.split(","):
                most = float(share) * max(costs)
                for name, rule in RULES.items():
                    score = rule(every[:, seen], labels[seen], every[:, other], labels[other], costs, most)
                    gains[name].setdefault(share, []).append(np.nan if score is None else 100 * score)
    rows: list[dict[str, Any]] = []
    for name, by_share in gains.items():
        row: dict[str, Any] = {"rule": name}
        for share, scores in by_share.items():
            over = np.array(scores) - np.array(gains["the ladder"][share])
            row[share] = {
                "accuracy": float(np.nanmean(scores)),
                "gain": float(np.nanmean(over)),
                "error": float(np.nanstd(over) / len(over) ** 0.5),
            }
        rows.append(row)
        told = "  ".join(f"{each['accuracy']:.2f} ({each['gain']:+.2f})" for key, each in row.items() if key != "rule")
        sys.stdout.write(f"{name:30s} {told}\n")
    if given.out is not None:
        report = {
            "runs": list(map(str, given.runs)),
            "runtime": given.runtime,
            "precision": given.precision,
            "rows": rows,
        }
        given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
