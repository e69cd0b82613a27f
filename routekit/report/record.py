"""Reading the record of a run, from which all reports are made; and what of it can be shown to others."""

import re
import shlex
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.manifest import verify

RECORD = "record.json"
# The entries with one bit for each test image.
OF_IMAGES = ("right", "dense_right")

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=1e-12, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
# More than any run has, and few enough to compute with.
Count = Annotated[int, Field(ge=0, le=10**15)]
Some = Annotated[int, Field(ge=1, le=10**15)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Accuracy(_Part):
    dense: Share | None
    routed: Share


class _Flops(_Part):
    convention: str
    dense: Positive
    target: Positive | None
    realized: Amount
    chance: Amount | None = None


class _Routes(_Part):
    unique: Some
    entropy_bits: Amount
    mean_units: Amount
    units: Count
    run_rate: dict[str, Share]


class _Environment(_Part):
    device: str
    threads: Count
    date: str
    command: str | None = None


class _Exit(_Part):
    after: str
    stops: Share
    accuracy: Share | None
    alone: Share


class _Pass(_Part):
    form: str
    precision: str
    macs: Amount
    bytes: Count


class _Time(_Part):
    runtime: str
    batch: int
    threads: int
    mean_ms: Positive
    dense_ms: Positive
    speedup: Positive
    p50: Amount
    p95: Amount
    p99: Amount
    target_ms: Positive | None


class _Chosen(_Part):
    images: Some
    accuracy: Share
    dense_accuracy: Share
    standard_error: Amount
    chance: Share | None = None


class _Size(_Part):
    parameters: Count
    bytes: Count


class _LastEpoch(_Part):
    gain: Finite
    error: Amount


class _ByClass(_Part):
    class_: list[str] = Field(alias="class")
    images: list[Count]
    right: list[Count]
    dense_right: list[Count] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        dense = self.right if self.dense_right is None else self.dense_right
        if not len(self.class_) == len(self.images) == len(self.right) == len(dense):
            raise ValueError("its lists are of different lengths")
        return self


def _counted(found: dict[str, Any]) -> dict[str, Any]:
    _ByClass.model_validate(found)
    return found


# The entry "by_class", for what else holds one.
Counted = Annotated[dict[str, Any], AfterValidator(_counted)]


class _Record(_Part):
    """What every record has. Some have more."""

    run: str
    data: str
    split: str
    method: str
    images: Some
    seconds: Amount
    accuracy: _Accuracy
    flops: _Flops
    routes: _Routes
    environment: _Environment
    model: str
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    epochs: Amount | None = None
    shuffled_accuracy: Share | None = None
    junctions: list[str] | None = None
    validation: str | None = None
    inference: str | None = None
    policy: str | None = None
    pruning: str | None = None
    aim: str | None = None
    command: str | None = None
    average: bool | None = None
    classes: list[str] | None = None
    last_epoch: _LastEpoch | None = None
    right: str | None = None
    dense_right: str | None = None
    exits: list[_Exit] = []
    passes: list[_Pass] = []
    thresholds: list[Finite] = []
    time: _Time | None = None
    chosen: _Chosen | None = None
    size: _Size | None = None
    by_class: _ByClass | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        nothing = [name for name in self.model_fields_set - {"policy"} if getattr(self, name) is None]
        if nothing:
            raise ValueError(f"{min(nothing)} is there, and is nothing")
        if "passes" in self.model_fields_set and None in (self.time, self.chosen, self.size, self.average):
            raise ValueError("passes without their time, their size, or how they were chosen")
        for bits in (self.right, self.dense_right):
            if bits is not None and len(b64decode(bits, validate=True)) != -(-self.images // 8):
                raise ValueError(f"right answers that are not of {self.images} images")
        return self


def read_record(folder: Path) -> dict[str, Any]:
    """Read a finished run's record. Raises InputError if the run is not finished, or the file is damaged."""
    path = folder / RECORD
    if not path.exists():
        raise InputError(f"{folder} is not a finished run ({RECORD} is missing)")
    verify(path)
    record: Any = parse_json(read_document(path), path)
    if not isinstance(record, dict) or not record:
        raise InputError(f"{path} is damaged: it holds no record")
    _check(record, str(path))
    return record


def _check(record: Mapping[str, Any], name: str) -> None:
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        said = ": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"]]))
        raise InputError(f"{name} is damaged: {said}") from error


def record_beside(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record that a checkpoint holds beside its network, if it does. Raises InputError: it is damaged."""
    record: dict[str, Any] | None = about.get("record")
    if record is not None:
        _check(record, "the record in the checkpoint")
    return record


def without_images(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without its entries for each single image."""
    return {key: value for key, value in record.items() if key not in OF_IMAGES}


# How a path begins that says how the folders of a machine, or its user, are called; and its last part.
PLACE = re.compile(
    r"(?:(?<![^=,'\"(\[])|(?<=:)(?!//))"
    r"(?:file:/*|/|~[^/,'\"]*/|(?:\.\./)+|[A-Za-z]:[\\/]|\\\\)(?:[^,'\"]*[\\/])?([^,'\"\\/]+)[\\/]*"
)


def portable(value: Any) -> Any:
    """Leave out of a record, or a part of it, how the folders of a machine are called: of a path, the last part stays.

    Args:
        value: A record, or a value in one. Paths that begin in the folder of the command stay as they are.

    Returns:
        The same without them.
    """
    if isinstance(value, Mapping):
        return {key: each if key in OF_IMAGES else portable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [portable(each) for each in value]
    if not isinstance(value, str):
        return value
    if PLACE.match(value):  # a path, which may hold spaces
        return PLACE.sub(r"\1", value)
    try:  # a command line, in which what holds spaces is quoted
        words = shlex.split(value)
    except ValueError:
        words = value.split()
    if all(word == PLACE.sub(r"\1", word) for word in words):
        return value
    return shlex.join(PLACE.sub(r"\1", word) for word in words)
