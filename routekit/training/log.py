"""The progress of a run: for a display, and for `metrics.jsonl`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routekit.documents import read_document
from routekit.errors import RoutekitError
from routekit.evaluation.evaluate import Evaluation
from routekit.manifest import note

# The fields that differ between two runs of the same computation.
CLOCK_FIELDS = ("seconds", "images_per_second")


@dataclass(frozen=True)
class Progress:
    """What a progress display shows after a step.

    Attributes:
        step: The number of steps that are done.
        steps: The number of all steps.
        phase: "route" while routers learn, "hard" after it, "train" if nothing learns to decide.
        losses: Each term of the objective.
        realized: The last measured cost, a fraction of the dense one.
        wanted: The wanted cost, a fraction of the dense one.
        images_per_second: The mean speed.
    """

    step: int
    steps: int
    phase: str
    losses: dict[str, float]
    realized: float
    wanted: float
    images_per_second: float


def findings(measured: Evaluation, dense: float) -> dict[str, Any]:
    """Return what `metrics.jsonl` tells of an evaluation.

    Args:
        measured: The evaluation.
        dense: The cost of the dense network, in the same unit.

    Returns:
        The fields of a line.
    """
    statistics = measured.statistics
    return {
        "accuracy": measured.accuracy,
        "realized": measured.cost / dense,
        "routes": statistics.unique,
        "route_entropy": statistics.entropy,
        "class_information": statistics.class_information,
        "run_rate": statistics.run_rate,
    }


class MetricsLog:
    """One JSON object on each line, append-only.

    A run's state keeps `position`, so that a resumed run repeats no line. A `path` of None writes nothing.
    """

    def __init__(self, path: Path | None, position: int = 0) -> None:
        self.path = path
        self.position = position
        if path is not None:
            path.touch()
            note(path, finished=False)
            with path.open("r+b") as stream:
                stream.truncate(position)

    def write(self, **values: Any) -> None:
        """Append one line. Resuming removes a line that was written in part.

        Raises:
            RoutekitError: The file cannot be written.
        """
        if self.path is None:
            return
        line = (json.dumps(values) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise RoutekitError(f"cannot write {self.path}: {error.strerror}; then go on with this run") from error
        self.position += len(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines of a metrics file."""
    return [json.loads(line) for line in read_document(path).splitlines()]
