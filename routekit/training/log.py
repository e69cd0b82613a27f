"""What a run tells of itself: to whoever watches, and into `metrics.jsonl`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routekit.errors import RoutekitError

# What differs between two runs of the same computation.
CLOCK_FIELDS = ("seconds", "images_per_second")


@dataclass(frozen=True)
class Progress:
    """What a progress display shows after a step; costs are fractions of the dense cost."""

    step: int
    steps: int
    phase: str
    losses: dict[str, float]
    realized: float
    wanted: float
    images_per_second: float


class MetricsLog:
    """One JSON object a line, append-only; a run's state keeps `position`, so that a resumed run repeats no line."""

    def __init__(self, path: Path | None, position: int = 0) -> None:
        self.path = path
        self.position = position
        if path is not None:
            path.touch()
            with path.open("r+b") as stream:
                stream.truncate(position)

    def write(self, **values: Any) -> None:
        """Append one line. Raises RoutekitError if it can't; a part of it that was written is cut off on resuming."""
        if self.path is None:
            return
        line = (json.dumps(values) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise RoutekitError(f"cannot write {self.path}: {error.strerror}; go on with --resume") from error
        self.position += len(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
