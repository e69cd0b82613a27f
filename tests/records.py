"""A record of a run with all that records have, for tests that are about a part of it."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from routekit.macs import CONVENTION

WHOLE: dict[str, Any] = {
    "run": "runs/x", "model": "resnet20", "data": "toy", "split": "test", "images": 90, "method": "routed",
    "seconds": 3.0,
    "accuracy": {"dense": 0.9, "routed": 0.85},
    "flops": {"convention": CONVENTION, "dense": 100.0, "target": 50.0, "realized": 50.0},
    "routes": {"unique": 5, "entropy_bits": 1.5, "mean_units": 2.0, "units": 3, "run_rate": {}},
    "environment": {"device": "a CPU", "threads": 2, "date": "2026-11-22"},
}  # fmt: skip


def whole(part: Mapping[str, Any]) -> str:
    """The JSON of a record: `part`, and what it does not name."""

    def under(above: Mapping[str, Any], below: dict[str, Any]) -> dict[str, Any]:
        for name, value in above.items():
            both = isinstance(value, dict) and isinstance(below.get(name), dict) and name != "run_rate"
            below[name] = under(value, below[name]) if both else value
        return below

    return json.dumps(under(part, copy.deepcopy(WHOLE)))
