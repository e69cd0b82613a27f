"""`metrics.jsonl`: one JSON object a line, cut back on resume to where the resumed state was."""

import json
from pathlib import Path
from typing import Any

# What differs between two runs of the same computation.
CLOCK_FIELDS = ("seconds", "images_per_second")


class MetricsLog:
    """Append-only lines; `position` goes into the run's state, so that a resumed run repeats no line."""

    def __init__(self, path: Path | None, position: int = 0) -> None:
        self.path = path
        self.position = position
        if path is not None:
            path.touch()
            with path.open("r+b") as stream:
                stream.truncate(position)

    def write(self, **values: Any) -> None:
        """Append one line."""
        if self.path is None:
            return
        line = (json.dumps(values) + "\n").encode()
        with self.path.open("ab") as stream:
            stream.write(line)
        self.position += len(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
