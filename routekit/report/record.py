"""Reading the record of a run, from which all reports are made."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routekit.documents import read_document
from routekit.errors import InputError
from routekit.manifest import verify

RECORD = "record.json"

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Accuracy(_Part):
    dense: Share | None
    routed: Share


class _Flops(_Part):
    convention: str
    dense: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    target: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    realized: Amount


class _Routes(_Part):
    unique: Annotated[int, Field(ge=1)]
    entropy_bits: Amount
    mean_units: Amount
    units: Annotated[int, Field(ge=0)]
    run_rate: dict[str, Share]


class _Environment(_Part):
    device: str
    threads: int
    date: str


class _Record(_Part):
    """What every record has. Some have more."""

    run: str
    data: str
    split: str
    method: str
    images: Annotated[int, Field(ge=1)]
    seconds: Amount
    accuracy: _Accuracy
    flops: _Flops
    routes: _Routes
    environment: _Environment


def read_record(folder: Path) -> dict[str, Any]:
    """Read a finished run's record. Raises InputError if the run is not finished, or the file is damaged."""
    path = folder / RECORD
    if not path.exists():
        raise InputError(f"{folder} is not a finished run ({RECORD} is missing)")
    verify(path)
    try:
        record = json.loads(read_document(path))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict) or not record:
        raise InputError(f"{path} is damaged: it holds no record")
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{path} is damaged: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    return record
