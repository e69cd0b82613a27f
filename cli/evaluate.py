"""`routekit evaluate`: measure a run, or a compact checkpoint, on test images."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .output import result


def evaluate(
    run: Annotated[Path, o.saved("A run's folder, a compact checkpoint, or hf://user/name.")],
    data: o.Data = None,
    data_root: o.DataRoot = None,
    val: o.Val = None,
    val_from_test: o.ValFromTest = None,
    target_flops: Annotated[
        str | None,
        o.option("Budgets, met on validation images: 30%,50%. For an adaptive network, a cascade, or only exits."),
    ] = None,
    keep: Annotated[Path | None, o.option("Write the network for the one --target-flops as a new run.")] = None,
    policy: Annotated[
        str | None, o.option("Let exits decide by confidence or entropy, not by what they learned.")
    ] = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Measure RUN on its test images under hard routing: accuracy, realised cost, routes."""
    from routekit.errors import InputError
    from routekit.pipeline.measure import evaluate_curve, evaluate_run
    from routekit.registry import nearest
    from routekit.routing.certainty import certainties

    from .summary import summary

    section = o.images(data, data_root, val, val_from_test)
    if policy is not None and policy not in certainties:
        raise InputError(f"{policy!r} is no rule that exits can follow untrained: {nearest(policy, certainties)}")
    if target_flops is None:
        if keep is not None:
            raise InputError("--keep is for a network that is set for a budget: add --target-flops")
        if policy is not None:
            raise InputError("--policy sets a threshold that meets a budget: add --target-flops")
        record = evaluate_run(run, section, o.machine(device))
        result(record, summary(record), as_json=json)
        return
    targets = [text.strip() for text in target_flops.split(",")]
    records = evaluate_curve(run, section, o.machine(device), targets, keep, rule=policy)
    result({"curve": records}, "\n".join(map(summary, records)), as_json=json)
