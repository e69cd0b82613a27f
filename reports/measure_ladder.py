"""Drive a ladder's choices beside each of its forms alone, on all test images, in one process and in turns.

    python reports/measure_ladder.py runs/ladder --speedups 3,4,5,6,8 --runtime onnx --out ladder.json
    python reports/measure_ladder.py runs/ladder --flops 25%,35%,50% --precision int8 --out ladder-int8.json

For each aim, the sequence that `routekit aim` would choose (on validation images) is driven, and all forms in all
precisions. Milliseconds are means over test images as they come, p50 and p99 over calls. A choice is compared with the
best static network, by validation images, that is not slower (for --flops: that takes no more multiply-adds than were
asked for, and 1%): both answer the same test images, so the standard error
is that of paired differences. Nothing in the run is changed but its table of times.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from routekit.cost.aim import Aim
from routekit.errors import InputError
from routekit.evaluation.sequences import Point, standard_error
from routekit.pipeline.by_time import meet
from routekit.pipeline.choice import Choice, place_of
from routekit.pipeline.inputs import load_images
from routekit.pipeline.machine import Hooks, Machine
from routekit.pipeline.run_folder import RunFolder
from routekit.pipeline.rungs import Ladder, drawn
from routekit.runtime.drive import Clock


def main() -> None:
    """Print the measurements as JSON, and write them where --out says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--speedups", default="", help="aims: times as fast as the dense network in float32")
    parser.add_argument("--drops", default="", help="aims: points of accuracy that may be lost")
    parser.add_argument("--flops", default="", help="aims, alone: shares of the dense multiply-adds")
    parser.add_argument("--runtime", default="onnx")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    hooks = Hooks(say=lambda sentence: sys.stderr.write(f"{sentence}\n") and None)
    machine = Machine("cpu", hooks, "python reports/measure_ladder.py " + " ".join(sys.argv[1:]))
    folder, plan = RunFolder.open(given.run)
    ladder = Ladder(folder.forms, load_images(plan, hooks), hooks)
    where = {"runtime": given.runtime, "batch": given.batch, "threads": given.threads, "precision": given.precision}
    aims = [Aim(speedup=float(each), **where) for each in given.speedups.split(",") if each]
    aims += [Aim(max_drop=float(each), **where) for each in given.drops.split(",") if each]
    if given.flops:
        dense = ladder.forms["dense"]
        aims = [Aim(macs=dense * float(each.rstrip("%")) / 100, **where) for each in given.flops.split(",")]
    if not aims:
        parser.error("give --speedups, --drops or --flops")
    rows: list[dict[str, Any]] = []
    with Clock(place_of(aims[0])) as clock, TemporaryDirectory() as scratch:
        choice = Choice.of(ladder, aims[0], machine, clock)
        points, passes = [], []
        for place in range(len(choice.rungs)):
            points.append(Point((place,), (), False, 0.0, 0, (1.0,)))
            passes.append(choice.rungs[place].passes)
            rows.append({"aim": None})
        for number, aim in enumerate(aims):
            asked = choice.at(aim)
            try:
                point, expected = meet(asked)
            except InputError as error:
                hooks.say(str(error))
                continue
            points.append(point)
            passes.append(asked.compose(point, Path(scratch) / str(number))[1])
            asked_for = {"target_macs": aim.macs, "target_ms": expected.target, "validation_ms": expected.ms}
            rows.append({"aim": aim.describe(), **asked_for})
        test = ladder.data.test
        driven = clock.drive(passes, drawn(test, len(test), plan.seed))
    right = [choice.tested.right(point) for point in points]
    for row, point, correct, each in zip(rows, points, right, driven, strict=True):
        row |= {
            "passes": choice.names(point),
            "thresholds": list(point.thresholds),
            "average": point.average,
            "validation": float(choice.answers.right(point).mean()),
            "test": float(correct.mean()),
            "macs": float(np.dot(choice.tested.rates(point), [choice.rungs[each].macs for each in point.passes])),
            "bytes": choice.size(point),
            "ms": each.mean,
            **{name: value for name, value in asdict(each).items() if name != "mean"},
        }
    static = [place for place, row in enumerate(rows) if row["aim"] is None]
    for place, row in enumerate(rows):
        if row["aim"] is not None:
            unit, most = ("macs", 1.01 * row["target_macs"]) if given.flops else ("ms", row["ms"])
            able = [other for other in static if rows[other][unit] <= most]
            best = max(able, key=lambda other: rows[other]["validation"], default=None)
            if best is not None:
                row["best_static"] = rows[best]["passes"]
                row["over_static"] = 100 * (row["test"] - rows[best]["test"])
                row["standard_error"] = 100 * standard_error(np.asarray(right[place]), np.asarray(right[best]))
    report = {"run": str(given.run), "images": len(test), "seed": plan.seed, **vars(clock.place), "rows": rows}
    report["environment"] = machine.environment()
    text = json.dumps(report, indent=1) + "\n"
    sys.stdout.write(text)
    if given.out is not None:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
