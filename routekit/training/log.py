"""The progress of a run: for a display, for `metrics.jsonl`, and for a tracker."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from routekit.documents import parse_json, read_document
from routekit.errors import InputError, RoutekitError
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


def flat(values: Any, joint: str, name: str = "") -> dict[str, Any]:
    """Give each value of a nested document a name: `{"losses": {"total": 1}}` -> `{"losses/total": 1}`.

    Args:
        values: Dictionaries and sequences in each other. The items of a sequence are named by their positions.
        joint: What stands between two parts of a name.
        name: The name of the whole.

    Returns:
        The values that hold no others, by name.
    """
    if not isinstance(values, dict | list | tuple):
        return {name: values}
    parts = values.items() if isinstance(values, dict) else enumerate(values)
    found: dict[str, Any] = {}
    for key, value in parts:
        found |= flat(value, joint, f"{name}{joint}{key}" if name else str(key))
    return found


class _Line(BaseModel):
    step: Annotated[int, Field(ge=0)]
    realized: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Step(_Line):
    kind: Literal["step"]
    losses: dict[str, float]
    wanted: float


class _Validation(_Line):
    kind: Literal["validation"]
    accuracy: Annotated[float, Field(ge=0, le=1)]
    routes: Annotated[int, Field(ge=1)]


class MetricsLog:
    """One JSON object on each line, append-only. A tracker gets the numbers of each line.

    A run's state keeps `position`, so that a resumed run repeats no line. A `path` of None writes nothing. `tell` is
    called with numbers by name (such as `step/losses/total` or `validation/accuracy`), and with the step.
    """

    def __init__(
        self, path: Path | None, position: int = 0, tell: Callable[..., object] = lambda numbers, step: None
    ) -> None:
        self.path, self.position, self.tell = path, position, tell
        if path is not None:
            path.touch()
            if path.stat().st_size < position:
                raise InputError(f"{path} was cut since: restore it, or start over with force=True")
            note(path, finished=False)
            with path.open("r+b") as stream:
                stream.truncate(position)

    def write(self, *, kind: str, step: int, **values: Any) -> None:
        """Append one line. Resuming removes a line that was written in part.

        Raises:
            RoutekitError: The file cannot be written.
        """
        if self.path is None:
            return
        line = (json.dumps({"kind": kind, "step": step, **values}) + "\n").encode()
        try:
            with self.path.open("ab") as stream:
                stream.write(line)
        except OSError as error:
            raise RoutekitError(f"cannot write {self.path}: {error.strerror}; then go on with this run") from error
        self.position += len(line)
        named = flat({kind: values}, "/").items()
        self.tell({name: value for name, value in named if isinstance(value, int | float)}, step=step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines of a metrics file. Raises InputError: it is damaged."""
    lines = [parse_json(line, path) for line in read_document(path).splitlines()]
    try:
        TypeAdapter(list[Annotated[_Step | _Validation, Field(discriminator="kind")]]).validate_python(lines)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{path} is damaged in line {int(fault['loc'][0]) + 1}: {fault['msg']}") from error
    return lines
