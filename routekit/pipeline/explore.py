"""What a finished network does at other settings, and which images it answers otherwise than the dense network.

Nothing is chosen by this: it is for a report, and it is measured on test images.
"""

import base64
import hashlib
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.evaluation.answers import unpack
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.evaluation.sequences import Answers, Point
from routekit.manifest import verify
from routekit.network.network import RoutedNetwork
from routekit.network.program import margins_tell
from routekit.pipeline.aim import FRONTIER
from routekit.pipeline.analyse import Length, some_of
from routekit.pipeline.record import by_class
from routekit.pipeline.rungs import PRECISE, Ladder
from routekit.report.record import Amount, Counted, Share
from routekit.report.settings import Setting, chosen_of, cost_of

# How many settings of the thresholds are tried.
TRIED = 40
# How many images of each kind are shown, and their size, pixels.
SHOWN, SIZE = 18, 64


@dataclass(frozen=True)
class Example:
    """An image that changed its answer: the name of its class, and a JPEG in base64."""

    name: str
    image: Annotated[str, Field(pattern="^[A-Za-z0-9+/=]*$")]


@dataclass(frozen=True)
class Changes:
    """The test images that one of two networks alone answers rightly, the dense one and the run's.

    Attributes:
        lost: How many the dense network alone answers rightly.
        gained: How many the run's network alone does.
        by_class: Of each class, how many are answered rightly, as in a record.
        lost_examples: Some of the lost ones.
        gained_examples: Some of the gained ones.
    """

    lost: Annotated[int, Field(ge=0)]
    gained: Annotated[int, Field(ge=0)]
    by_class: Counted
    lost_examples: list[Example]
    gained_examples: list[Example]


@dataclass(frozen=True)
class Explored:
    """What was found of one record: the settings, the cheapest first, and the changes, where they are known."""

    of: str
    settings: list[Setting]
    changes: Changes | None

    def __post_init__(self) -> None:
        """Raise ValueError unless one of the settings, if there are any, is the chosen one."""
        if self.settings and sum(each.chosen for each in self.settings) != 1:
            raise ValueError("not one of its settings is the chosen one")


@dataclass(frozen=True)
class _Listed:
    """A point of a ladder's `frontier.json`."""

    passes: list[str]
    thresholds: list[float]
    average: bool
    mean_macs: Amount
    validation_accuracy: Share
    test_accuracy: Share
    ms: Amount | None = None
    macs: Amount | None = None

    @property
    def cost(self) -> float:
        return self.mean_macs if self.ms is None else self.ms


@dataclass(frozen=True)
class _Table:
    runtime: str
    points: list[_Listed]


def digest(record: Mapping[str, Any]) -> str:
    """The SHA-256 of a record, by which it is known whether what was found is of this one."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def settings_of(
    network: RoutedNetwork, data: DataSplits, costs: CostTable, record: Mapping[str, Any], lengths: Sequence[Length]
) -> list[Setting]:
    """Move the thresholds of a network, all by the same price, as `routekit evaluate` does to meet another budget.

    Args:
        network: The network.
        data: The images: test images, and validation images.
        costs: The cost table.
        record: The record of the run.
        lengths: How long images take, by the number of units that run.

    Returns:
        The settings, the cheapest first. None where no threshold can be moved alone.
    """
    alone = not network.junctions or len(network.blueprint.sources) > 1
    sampled = record.get("inference", "hard") != "hard"
    if not network.stops or not alone or network.pricing is not None or sampled or not margins_tell(network.steps):
        return []
    stops, share = list(costs.layout.stops), torch.zeros_like(costs.cost_share)
    share[stops] = costs.cost_share[stops].clamp(min=1e-9)
    tested, valid = (evaluate(network, images, costs, everywhere=True) for images in (data.test, data.val))
    milliseconds = {each.units: each.milliseconds for each in lengths}

    def at(price: float) -> Setting:
        right, routes, answered = _moved(tested, costs, price * share)
        taken = [milliseconds.get(units, math.nan) for units in network.units_run(routes).tolist()]
        return Setting(
            accuracy=float(right.double().mean()),
            macs=float(costs.of_routes(routes).mean()),
            stops=[float((answered == place).double().mean()) for place in range(len(stops) + 1)],
            thresholds=(network.bias.cpu().double() + price * share)[stops].tolist(),
            validation=float(_moved(valid, costs, price * share)[0].double().mean()),
            ms=None if math.isnan(mean := float(np.mean(taken))) else mean,
        )

    # The prices at which an image changes its way, from none that goes on to all.
    flips = np.sort((-tested.margins[:, stops].double() / share[stops]).flatten().numpy())
    tried = flips[np.linspace(0, len(flips) - 1, TRIED).round().astype(int)].tolist()
    # What was measured when the run was made counts for the setting that it has chosen.
    measured, here = chosen_of(record), at(0.0)
    chosen = replace(measured, thresholds=here.thresholds, validation=here.validation, ms=here.ms)
    others = {tuple(setting.stops): setting for setting in map(at, [flips[0] - 1.0, *tried])}
    others.pop(tuple(here.stops), None)
    return sorted([chosen, *others.values()], key=lambda each: each.macs)


def _moved(found: Evaluation, costs: CostTable, by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What images do if their margins were so much larger: who is right, the routes, and which answer counts."""
    layout = costs.layout
    routes = layout.strike(layout.choose(found.margins.double() + by))
    answered = routes[:, list(layout.stops)].sum(dim=1)
    assert found.leaves is not None
    answers = found.leaves.argmax(dim=2).gather(1, answered.unsqueeze(1)).squeeze(1)
    return answers == found.labels, routes, answered


def settings_of_ladder(path: Path, record: Mapping[str, Any], ladder: Ladder) -> list[Setting]:
    """List the points of a ladder that no cheaper one beats on validation images, and the chosen one.

    Args:
        path: The run.
        record: Its record.
        ladder: Its forms. Where their answers to test images are kept, they say what each pass answers.

    Returns:
        The settings, the cheapest first. None if `frontier.json` is missing.

    Raises:
        InputError: A file is damaged.
    """
    file = path / FRONTIER
    if not file.exists():
        return []
    verify(file)
    try:
        table = TypeAdapter(_Table).validate_python(parse_json(read_document(file), file))
    except ValidationError as error:
        raise InputError(f"{file} is damaged: choose again (`routekit aim`)") from error
    best, chosen, found = -1.0, chosen_of(record), list[_Listed]()
    for point in sorted(table.points, key=lambda each: (each.cost, -each.validation_accuracy)):
        same = (point.passes, point.thresholds, point.average) == (chosen.passes, chosen.thresholds, chosen.average)
        if point.validation_accuracy > best and not same:
            best = point.validation_accuracy
            found.append(point)
    timed = all(point.ms is not None for point in found)
    names = sorted({name for point in found for name in point.passes})
    kept = {name: ladder.kept(name, table.runtime) for name in names}
    known = {name: each for name, each in kept.items() if each is not None}
    order, labels = list(known), ladder.data.test.labels
    answers = Answers(torch.stack(list(known.values())), labels) if known else None
    settings = [chosen if chosen.stops else replace(chosen, stops=[1.0])]
    for point in found:
        whole = answers is not None and {*point.passes} <= {*known}
        settings.append(_listed(point, answers if whole else None, order, ladder.forms))
    return sorted(settings, key=lambda each: cost_of(each, timed=timed))


def _listed(point: _Listed, answers: Answers | None, order: Sequence[str], macs: Mapping[str, float]) -> Setting:
    """A point of the frontier as a setting; its cost and its passes' shares on test images where answers are known."""
    setting = Setting(
        accuracy=point.test_accuracy,
        macs=point.mean_macs,
        thresholds=point.thresholds,
        passes=point.passes,
        average=point.average,
        validation=point.validation_accuracy,
        ms=point.ms,
    )
    if answers is None:
        return setting
    passes = tuple(order.index(name) for name in point.passes)
    rates = answers.rates(Point(passes, tuple(point.thresholds), point.average, 0.0, 0, ()))
    each = [macs[name.rpartition(" ")[0]] for name in point.passes]
    stops = [here - there for here, there in itertools.pairwise([*rates, 0.0])]
    return replace(setting, macs=float(np.dot(rates, each)), stops=stops)


def changes_of(record: Mapping[str, Any], images: Images, dense: Tensor | None) -> Changes | None:
    """Find the images that one of two networks alone answers rightly, and show some of them.

    Args:
        record: The record of the run.
        images: Its test images.
        dense: Which of them the dense network answers rightly, where the record does not say so, `[N]`, bool.

    Returns:
        The changes; None where they are not known, or these are other images.
    """
    if "dense_right" in record:
        dense = unpack(record["dense_right"], record["images"])
    if dense is None or "right" not in record or len(images) != record["images"]:
        return None
    right, labels = unpack(record["right"], record["images"]), images.labels
    counted = by_class(labels, right, dense, images.classes)
    if "by_class" in record and counted != record["by_class"]:
        return None
    lost, gained = dense & ~right, right & ~dense
    return Changes(
        lost=int(lost.sum()),
        gained=int(gained.sum()),
        by_class=counted,
        lost_examples=_examples(images, lost),
        gained_examples=_examples(images, gained),
    )


def dense_right(ladder: Ladder, runtime: str) -> Tensor | None:
    """Which test images the dense network of a ladder answers rightly, `[N]`, bool, by answers that are kept."""
    kept = ladder.kept(f"{list(ladder.forms)[-1]} {PRECISE}", runtime)
    return None if kept is None else kept.argmax(dim=1) == ladder.data.test.labels


def _examples(images: Images, which: Tensor) -> list[Example]:
    from torchvision.transforms.v2 import functional as vision

    members = which.nonzero().squeeze(1)
    if not len(members):
        return []
    batch, labels = next(iter(images.batches(some_of(members, SHOWN), SHOWN)))
    found = []
    for image, label in zip(vision.resize(batch, [SIZE, SIZE], antialias=True), labels.tolist(), strict=True):
        stream = io.BytesIO()
        Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=80)
        found.append(Example(images.classes[label], base64.b64encode(stream.getvalue()).decode()))
    return found
