"""Pictures of recorded runs, after McGill and Perona (2017): accuracy against cost, and where images are answered.

Each picture is drawn from records alone: the same records give the same bytes.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from routekit.errors import InputError
from routekit.report.comparison import deviation
from routekit.report.drawing import GREY, WIDTH, blank, line, looks, stacked
from routekit.report.findings import PAST
from routekit.report.settings import spoken

# The diameter of a circle where all images are answered, points.
LARGEST = 26.0
AFTER = "classifier after"
# The width of a letter of a label, inches, and how many letters always have room.
LETTER, USUAL = 0.055, 40


def accuracy_against_cost(records: Sequence[dict[str, Any]]) -> Any:
    """Draw error rate against mean cost (Fig. 5, 9 and 10): a line for each kind of network, a point for each run.

    Runs that differ in the seed alone are one point: their mean, with a bar of one sample standard deviation.
    """
    axes = blank(WIDTH + 1, 4).subplots()
    points: dict[str, dict[float, list[tuple[float, float]]]] = {}
    stars = set()
    for record in records:
        flops, accuracy = record["flops"], record["accuracy"]
        group = points.setdefault(kind_of(record), {}).setdefault(flops["target"] or flops["dense"], [])
        group.append((flops["realized"], 1 - accuracy["routed"]))
        if accuracy["dense"] is not None:
            stars.add((flops["dense"], 1 - accuracy["dense"]))
    for kind, look in looks(points).items():
        found = [tuple(zip(*group, strict=True)) for group in points[kind].values()]
        line(axes, [(fmean(costs), fmean(errors), deviation(errors)) for costs, errors in found], look, kind)
    if stars:
        axes.plot(*zip(*sorted(stars), strict=True), "*", color="black", markersize=9, label="dense")
    axes.set(xlabel="mean cost of an image, MACs (fvcore: 1 multiply-add = 1 FLOP)", ylabel="error rate, test images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return axes.figure


def dataflow(records: Sequence[dict[str, Any]]) -> Any:
    """Draw where images are answered (Fig. 6 and 7): a row for each run with exits, a circle for each classifier.

    The area of a circle is the share of the images that are answered there. Above, its colour is the share of them
    that are right. Below, its slices are their classes. Raises InputError if no run has exits.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    records = _with_exits(records)
    count = max(len(record["exits"]) for record in records)
    titles = ["area: how many images; colour: right", "of which classes they are"]
    above, below = stacked(titles, AFTER, height=0.9 + 0.55 * len(records))
    labels = [_label(record) for record in records] if len(records) > 1 else [""]  # one is what the report is of
    # Long labels, of several networks for example, would leave no room for the circles.
    longest = max(len(part) for label in labels for part in label.split("\n"))
    above.figure.set_figwidth(max(WIDTH, 2.2 + 0.5 * count) + LETTER * max(0, longest - USUAL))
    colours, slices = colormaps["viridis"], list(colormaps["tab20"](range(20)))
    for row, record in enumerate(records):
        places = range(len(record["exits"]))
        for axes in (above, below):
            axes.plot(places, [row] * len(places), color=GREY, linewidth=1, zorder=1)
        for place, answered in enumerate(record["exits"]):
            size = LARGEST * math.sqrt(answered["stops"])
            if size:
                above.plot(place, row, "o", markersize=size, color=colours(answered["accuracy"]), zorder=2)
                _slices(below, place, row, size, answered["answered"], slices)
    for axes in (above, below):
        axes.grid(visible=False)
        axes.set(xlim=(-0.6, count - 0.4), ylim=(len(records) - 0.4, -0.6))
        axes.set_yticks(range(len(records)), labels, fontsize=7)
    below.set_xticks(range(count), _classifiers(records), fontsize=8)
    above.figure.colorbar(ScalarMappable(cmap=colours), ax=above, label="right")
    classes = records[0]["classes"]
    handles = [below.plot([], [], "o", color=slices[index % len(slices)])[0] for index in range(len(classes))]
    widest = 0.35 + LETTER * max(map(len, classes))
    columns = max(1, min(5, int(above.figure.get_figwidth() / widest)))
    below.figure.legend(handles, classes, fontsize=7, frameon=False, loc="outside lower center", ncols=columns)
    return above.figure


def _classifiers(records: Sequence[dict[str, Any]]) -> list[str]:
    """The units that the classifiers follow; their numbers where runs differ in that, or where there are many."""
    names = [[spoken(each["after"]) for each in record["exits"]] for record in records]
    longest = max(names, key=len)
    return longest if len(longest) < 6 and names.count(longest) == len(names) else list(map(str, range(len(longest))))


def dataflow_over_training(record: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> Any:
    """Draw where validation images are answered, from epoch to epoch (Fig. 8).

    Args:
        record: The record of a run.
        metrics: The lines of its log.

    Returns:
        The figure.

    Raises:
        InputError: The run has no exits.
    """
    (record,) = _with_exits([record])
    count = len(record["exits"])
    checks = [each for each in metrics if each["kind"] == "validation"]
    columns = [place for place, name in enumerate(record["routes"]["run_rate"]) if name.startswith(PAST)]
    past = np.zeros((len(checks), count + 1))
    past[:, 0] = 1.0
    for row, check in zip(past, checks, strict=True):
        # The column of a second look is the last one, and did not exist while the network was trained.
        rates = [check["run_rate"][place] for place in columns if place < len(check["run_rate"])]
        row[1 : len(rates) + 1] = rates
    axes = blank(max(WIDTH, 1.5 + 0.5 * count), 4).subplots()
    picture = axes.imshow(past[:, :-1] - past[:, 1:], aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(count), _classifiers([record]), fontsize=8)
    axes.set(xlabel=AFTER, ylabel="training step")
    shown = sorted({round(place) for place in np.linspace(0, len(checks) - 1, 8)})
    axes.set_yticks(shown, [str(checks[place]["step"]) for place in shown])
    axes.figure.colorbar(picture, label="of the validation images answered")
    return axes.figure


def kind_of(record: dict[str, Any]) -> str:
    """Describe the kind of a network: its model, how it was pruned, its junctions, and its policy."""
    words = [record["model"], record.get("pruning"), *(record.get("junctions") or [record.get("method", "")])]
    if record.get("policy"):
        words.append(f"({record['policy']})")
    return " ".join(word for word in words if word is not None)


def _with_exits(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [record for record in records if record.get("exits")]
    if not found:
        raise InputError("none of these runs has exits: there is no dataflow to draw")
    return found


def _slices(axes: Any, x: float, y: float, size: float, counts: Sequence[int], colours: Sequence[Any]) -> None:
    """Draw a circle of `size` points, in coloured slices whose angles are in proportion to `counts`."""
    start, total = 0.0, sum(counts)
    for index, count in enumerate(counts):
        stop = start + count / total
        angles = np.linspace(2 * math.pi * start, 2 * math.pi * stop, max(2, math.ceil(60 * (stop - start))))
        wedge = np.column_stack([np.r_[0, np.cos(angles)], np.r_[0, np.sin(angles)]])
        if count:
            area = size**2 * np.abs(wedge).max() ** 2
            axes.scatter([x], [y], marker=wedge, s=area, color=colours[index % len(colours)], linewidths=0)
        start = stop


def _label(record: dict[str, Any]) -> str:
    flops = record["flops"]
    return f"{kind_of(record)}\n{100 * flops['realized'] / flops['dense']:.0f}%, seed {record.get('seed', 0)}"
