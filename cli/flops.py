"""`routekit flops`: the cost table of a network."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .output import result


def flops(
    model: Annotated[str, o.saved("The name of a network, the folder of a run, or hf://user/name.", o.here)],
    classes: Annotated[int | None, o.option("The number of classes.", min=1)] = None,
    input_size: Annotated[int | None, o.option("The height and width of images, pixels.", min=8)] = None,
    json: o.Json = False,
) -> None:
    """Print the cost of each part of MODEL, counted by fvcore (1 multiply-add = 1 FLOP)."""
    from routekit.macs import CONVENTION, describe
    from routekit.pipeline.measure import cost_table

    costs = cost_table(Path(model) if Path(model).is_dir() else model, classes, input_size)
    width = max(len(part.name) for part in costs.parts)
    lines = [
        f"{part.name:<{width}}  {part.kind:<5}  {int(part.cost):>14,}{'  skippable' * part.skippable}"
        for part in costs.parts
    ]
    lines += [
        f"{'total':<{width}}  {'':<5}  {int(costs.dense):>14,}  = {describe(costs.dense)}",
        f"routed, routers included: {describe(costs.minimum)} to {describe(costs.maximum)}",
        f"convention: {CONVENTION}",
    ]
    if costs.uncounted:
        lines.append("without a rule in fvcore, counted as 0: " + ", ".join(costs.uncounted))
    document = {
        "model": model,
        "total": int(costs.dense),
        "convention": CONVENTION,
        "parts": [
            {"name": part.name, "kind": part.kind, "flops": int(part.cost), "skippable": part.skippable}
            for part in costs.parts
        ],
        "routed": {"minimum": costs.minimum, "maximum": costs.maximum},
        "uncounted": list(costs.uncounted),
    }
    result(document, "\n".join(lines), as_json=json)
