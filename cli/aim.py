"""`routekit aim`: choose from the forms of a finished ladder for another aim."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from . import settings
from .output import result

EPILOG = """Examples:

routekit aim runs/mine --target-ms 3 --runtime torch --batch 8

routekit aim runs/mine --max-drop 0.5 --max-size 5MB

routekit aim runs/mine --target-flops 25%
"""


def aim(
    run: Annotated[Path, typer.Argument(help="The run of a ladder: what `convert` makes for a time.")],
    target_ms: o.TargetMs = None,
    target_speedup: o.TargetSpeedup = None,
    max_drop: o.MaxDrop = None,
    target_flops: Annotated[
        str | None, o.option("Mean cost of an image: 1.5e8, 150M, or 50% of dense.", o.BUDGET)
    ] = None,
    max_size: o.MaxSize = None,
    runtime: o.Runtime = None,
    precision: o.Precision = None,
    batch: o.Batch = None,
    threads: o.Threads = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Choose from the forms of RUN for another aim. Nothing is trained; the run then holds that choice.

    What is not given is as it was. It takes seconds, or a few minutes where forms are not yet exported or timed.
    """
    from routekit.pipeline.aim import aim_run

    from .summary import summary

    wanted = settings.aim(target_ms, target_speedup, max_drop, max_size, runtime, precision, batch, threads)
    changes = {name.removeprefix("aim."): value for name, value in wanted.items()}
    record = aim_run(run, changes, target_flops, o.machine(device))
    result(record, summary(record), as_json=json)
