"""Pictures of recorded runs, after McGill and Perona (2017): accuracy against cost, and where images are answered.

Each is drawn from records alone: the same records give the same bytes.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from routekit.errors import InputError
from routekit.report.comparison import deviation
from routekit.report.drawing import GREY, WIDTH, line, looks, single, stacked
from routekit.report.findings import PAST

# The largest circle of a dataflow, points: all images are answered there.
LARGEST = 26.0
AFTER = "classifier after"
# How wide a letter of a label is, inches, and for how many there is room in any case.
LETTER, USUAL = 0.055, 40


def accuracy_against_cost(records: Sequence[dict[str, Any]]) -> Any:
    """Error rate against mean cost (Fig. 5, 9 and 10): one line for each kind of network, one point for each run.

    Runs that differ in nothing but the seed are one point, their mean, with bars of one sample standard deviation.
    """
    axes = single(WIDTH + 1, 4)
    points: dict[str, dict[Any, list[tuple[float, float]]]] = {}
    for record in records:
        flops, group = record["flops"], points.setdefault(kind_of(record), {})
        place = record["flops"]["target"] or flops["dense"]
        group.setdefault(place, []).append((flops["realized"], 1 - record["accuracy"]["routed"]))
    for kind, look in looks(points).items():
        found = [tuple(zip(*group, strict=True)) for group in points[kind].values()]
        means = [(fmean(costs), fmean(errors), deviation(errors)) for costs, errors in found]
        line(axes, means, look, kind)
    known = [record for record in records if record["accuracy"]["dense"] is not None]
    if dense := {(record["flops"]["dense"], 1 - record["accuracy"]["dense"]) for record in known}:
        axes.plot(*zip(*sorted(dense), strict=True), "*", color="black", markersize=9, label="dense")
    axes.set_xlabel("mean cost of an image, MACs (fvcore: 1 multiply-add = 1 FLOP)")
    axes.set_ylabel("error rate, test images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return axes.figure


def dataflow(records: Sequence[dict[str, Any]]) -> Any:
    """Where images are answered (Fig. 6 and 7): a row for each run with exits, a circle for each classifier.

    A circle's area is the share of the images that are answered there; above, its colour says how many of them
    rightly, below, its slices of which classes they are. Raises InputError if no run has exits.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    records = _with_exits(records)
    count = max(len(record["exits"]) for record in records)
    titles = ["area: images answered; colour: how many of them rightly", "of which classes they are"]
    above, below = stacked(titles, AFTER, height=0.9 + 0.55 * len(records))
    # Labels that are longer than usual, of several networks, say, would leave no room.
    longest = max(len(part) for record in records for part in _label(record).splitlines())
    above.figure.set_figwidth(max(WIDTH, 2.2 + 0.5 * count) + LETTER * max(0, longest - USUAL))
    colours = colormaps["viridis"]
    for row, record in enumerate(records):
        places = range(len(record["exits"]))
        for axes in (above, below):
            axes.plot(places, [row] * len(places), color=GREY, linewidth=1, zorder=1)
        for place, leaving in enumerate(record["exits"]):
            size = LARGEST * math.sqrt(leaving["stops"])
            if not size:
                continue
            above.plot(place, row, "o", markersize=size, color=colours(leaving["accuracy"]), zorder=2)
            _slices(below, place, row, size, leaving["answered"])
    for axes in (above, below):
        axes.grid(visible=False)
        axes.set_xlim(-0.6, count - 0.4)
        axes.set_ylim(len(records) - 0.4, -0.6)
        axes.set_yticks(range(len(records)), [_label(record) for record in records], fontsize=7)
    below.set_xticks(range(count), _classifiers(records), fontsize=8)
    above.figure.colorbar(ScalarMappable(cmap=colours), ax=above, label="right")
    classes = records[0]["classes"]
    handles = [below.plot([], [], "o", color=_colour(index))[0] for index in range(len(classes))]
    below.figure.legend(handles, classes, fontsize=7, frameon=False, loc="outside lower center", ncols=5)
    return above.figure


def _classifiers(records: Sequence[dict[str, Any]]) -> list[str]:
    """After which units the classifiers are, or their numbers if runs differ in that, or where they are many."""
    names = [[leaving["after"] for leaving in record["exits"]] for record in records]
    longest = max(names, key=len)
    return longest if len(longest) < 6 and names.count(longest) == len(names) else list(map(str, range(len(longest))))


def dataflow_over_training(record: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> Any:
    """Where validation images are answered, from epoch to epoch (Fig. 8); `metrics` are the lines of a run's log.

    Raises InputError if the run has no exits.
    """
    (record,) = _with_exits([record])
    count = len(record["exits"]) - 1
    lines = [line for line in metrics if line["kind"] == "validation"]
    columns = [place for place, name in enumerate(record["routes"]["run_rate"]) if name.startswith(PAST)]
    past = np.zeros((len(lines), count + 2))
    past[:, 0] = 1.0
    for row, check in zip(past, lines, strict=True):
        # A second look comes last, and was not there yet.
        rates = [check["run_rate"][place] for place in columns if place < len(check["run_rate"])]
        row[1 : len(rates) + 1] = rates
    axes = single(max(WIDTH, 2 + 0.5 * count), 4)
    picture = axes.imshow(past[:, :-1] - past[:, 1:], aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(count + 1), _classifiers([record]), fontsize=8)
    axes.set_xlabel(AFTER)
    axes.set_ylabel("training step")
    shown = sorted({round(place) for place in np.linspace(0, len(lines) - 1, 8)})
    axes.set_yticks(shown, [str(lines[place]["step"]) for place in shown])
    axes.figure.colorbar(picture, label="of the validation images answered")
    return axes.figure


def kind_of(record: dict[str, Any]) -> str:
    """What is compared: the network, how it was pruned, what it decides, and by which policy."""
    pruned = [record["pruning"]] if record.get("pruning") else []
    words = [record["model"], *pruned, *(record.get("junctions") or [record.get("method", "")])]
    if record.get("policy"):
        words.append(f"({record['policy']})")
    return " ".join(words)


def _with_exits(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [record for record in records if record.get("exits")]
    if not found:
        raise InputError("none of these runs has exits: there is no dataflow to draw")
    return found


def _slices(axes: Any, x: float, y: float, size: float, counts: Sequence[int]) -> None:
    """Draw a circle of `size` points, in slices."""
    start, total = 0.0, sum(counts)
    for index, count in enumerate(counts):
        stop = start + count / total
        angles = np.linspace(2 * math.pi * start, 2 * math.pi * stop, max(2, math.ceil(60 * (stop - start))))
        wedge = np.column_stack([np.r_[0, np.cos(angles)], np.r_[0, np.sin(angles)]])
        if count:
            axes.scatter(
                [x], [y], marker=wedge, s=size**2 * np.abs(wedge).max() ** 2, color=_colour(index), linewidths=0
            )
        start = stop


def _colour(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](index % 20)


def _label(record: dict[str, Any]) -> str:
    flops = record["flops"]
    return f"{kind_of(record)}\n{100 * flops['realized'] / flops['dense']:.0f}%, seed {record.get('seed', 0)}"
