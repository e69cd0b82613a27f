"""The settings of one network: what it does on test images at each of its thresholds, and at the chosen one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from routekit.report.record import Amount, Finite, Share


@dataclass(frozen=True)
class Setting:
    """What a network does on test images if its thresholds are these.

    Attributes:
        accuracy: The share of the test images that is answered rightly.
        macs: The mean multiply-adds of an image.
        stops: The share of the images that each pass or exit answers; empty where that is not known.
        thresholds: Of each stop; the larger, the more images go on.
        passes: The names of a ladder's passes.
        average: Whether the mean of their answers counts.
        validation: The share of the validation images that is answered rightly.
        ms: The mean milliseconds of an image.
        chosen: Whether the run has chosen this one.
    """

    accuracy: Share
    macs: Amount
    stops: list[Share] = field(default_factory=list)
    thresholds: list[Finite] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    average: bool = False
    validation: Share | None = None
    ms: Amount | None = None
    chosen: bool = False


def chosen_of(record: Mapping[str, Any]) -> Setting:
    """The setting that a run has chosen, as it was measured.

    Args:
        record: The record of the run.

    Returns:
        The setting.
    """
    return Setting(
        accuracy=record["accuracy"]["routed"],
        macs=record["flops"]["realized"],
        stops=[each["stops"] for each in record.get("exits", [])],
        thresholds=record.get("thresholds", []),
        passes=[f"{each['form']} {each['precision']}" for each in record.get("passes", [])],
        average=record.get("average", False),
        validation=record["chosen"]["accuracy"] if "chosen" in record else None,
        ms=record["time"]["mean_ms"] if "time" in record else None,
        chosen=True,
    )


def dense_of(record: Mapping[str, Any]) -> Setting | None:
    """The dense network, as a point beside the settings; None where its accuracy is not known, or it is the run's own.

    Args:
        record: The record of the run.

    Returns:
        The point.
    """
    if record["accuracy"]["dense"] is None or record["method"] == "dense":
        return None
    return Setting(
        accuracy=record["accuracy"]["dense"],
        macs=record["flops"]["dense"],
        validation=record["chosen"]["dense_accuracy"] if "chosen" in record else None,
        ms=record["time"]["dense_ms"] if "time" in record else None,
    )


def cost_of(setting: Setting, *, timed: bool) -> float:
    """The cost of a setting: milliseconds, or millions of multiply-adds."""
    return setting.ms if timed and setting.ms is not None else setting.macs / 1e6


def spoken(name: str) -> str:
    """Call the networks of a cascade what people call them: `past network 0` -> "past pass 1"."""
    return re.sub(r"\bnetwork ([0-9]{1,4})\b", lambda found: f"pass {int(found[1]) + 1}", name)


def answerer(after: str) -> str:
    """Say what answers an image, in words.

    Args:
        after: The name of what lies before a stop: `layer1.2`, `narrow`, `network 0`, or `0/narrow` of joined networks.

    Returns:
        The words: "the exit after layer1.2", "the narrow form", "pass 1".
    """
    number, inside, own = after.rpartition("/")
    if own.startswith("network "):
        return spoken(own)
    said = f"narrow form {own.removeprefix('narrow.')}" if own.startswith("narrow.") else f"the exit after {own}"
    known = {"end": "the end", "again": "both looks", "narrow": "the narrow form"}
    of = spoken(f" of network {number}") if inside else ""
    return known.get(own, said) + of
