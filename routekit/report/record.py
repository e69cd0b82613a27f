"""Reading the record of a run, from which all reports are made."""

import json
from pathlib import Path
from typing import Any

from routekit.documents import read_document
from routekit.errors import InputError

RECORD = "record.json"


def read_record(folder: Path) -> dict[str, Any]:
    """Read a finished run's record. Raises InputError if the run is not finished, or the file is damaged."""
    path = folder / RECORD
    if not path.exists():
        raise InputError(f"{folder} is not a finished run ({RECORD} is missing)")
    try:
        record = json.loads(read_document(path))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict) or not record:
        raise InputError(f"{path} is damaged: it holds no record")
    return record
