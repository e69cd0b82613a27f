"""Pictures of one run: how it learned, and what its network does with images. Each is drawn from records alone."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from routekit.report.curve import Curve
from routekit.report.drawing import BLUE, GREEN, GREY, ORANGE, WIDTH, blank, grid, stacked, whole
from routekit.report.settings import spoken

# How many of the commonest routes are drawn.
ROUTES = 6
# Up to this many classes, all names are written; of more classes, some.
NAMED = 20
DOTS = {"marker": "o", "markersize": 4}


def training(record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Any:
    """Draw how a run learned: accuracy, loss, cost and wanted cost, and the routes where there are several.

    Args:
        record: The record of the run.
        metrics: The lines of its log.

    Returns:
        The figure.
    """
    steps = [line for line in metrics if line["kind"] == "step"]
    checks = [line for line in metrics if line["kind"] == "validation"]
    # All forms of a ladder are trained at once, at no wanted cost; then some of them are chosen.
    steered = record["method"] != "ladder"
    several = steered and any(line["routes"] > 1 for line in checks)
    titles = ["accuracy, % of the validation images", "classification loss, training batches"]
    titles += ["mean cost, % of the dense MACs"] * steered + ["routes that are taken"] * several
    accuracy, loss, *panels = stacked(titles, "training step")
    at = [line["step"] for line in checks]
    accuracy.plot(at, [100 * line["accuracy"] for line in checks], color=BLUE, **DOTS)
    _line(loss, [(line["step"], line["losses"]["classification"]) for line in steps], color=GREY)
    if steered:
        _cost(panels[0], record, steps, checks)
    if several:
        panels[-1].plot(at, [line["routes"] for line in checks], color=GREEN, **DOTS)
        whole(panels[-1].yaxis)
    return accuracy.figure


def _cost(
    cost: Any, record: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], checks: Sequence[Mapping[str, Any]]
) -> None:
    """Draw the cost and what was wanted of it, from step to step."""
    target, scale = record["flops"]["target"], 100.0
    if target is not None and steps:
        # The log counts in shares of the network that is trained, which may be pruned: in the end, it wants the target.
        scale *= target / record["flops"]["dense"] / steps[-1]["wanted"]
    # Before the first measurement, the log holds the cost of the whole network.
    known = itertools.dropwhile(lambda line: line["realized"] == 1, steps)
    _line(cost, [(line["step"], scale * line["realized"]) for line in known], color=ORANGE)
    realised = [scale * line["realized"] for line in checks]
    cost.plot([line["step"] for line in checks], realised, "o", markersize=4, color=ORANGE, label="realised")
    wanted = [(line["step"], scale * line["wanted"]) for line in steps]
    _line(cost, wanted, color="black", linestyle="--", linewidth=1, label="wanted")
    cost.set_ylim(0, 1.1 * max(y for drawn in cost.lines for y in drawn.get_ydata()))
    cost.legend(fontsize=8, frameon=False)


def curve(found: Curve) -> Any:
    """Draw the settings of one network: accuracy against cost, with the chosen one, the target and the dense network.

    Args:
        found: The settings.

    Returns:
        The figure.
    """
    axes = blank(WIDTH, 3.2).subplots()
    points = [(found.cost(each), 100 * each.accuracy) for each in found.settings]
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), "o-", color=BLUE, markersize=2.5, linewidth=1, label="other settings")
    if found.dense is not None:
        axes.plot(found.cost(found.dense), 100 * found.dense.accuracy, "*", color="black", markersize=11, label="dense")
    if found.target is not None:
        axes.axvline(found.target, color="black", linestyle="--", linewidth=1, label="target")
    ring = {"markerfacecolor": "none", "markeredgewidth": 2.5, "markersize": 10}
    axes.plot(*points[found.chosen], "o", markeredgecolor=ORANGE, **ring, label="this network", gid="ring")
    axes.set(
        xlabel=f"mean cost of an image, {'milliseconds' if found.timed else 'millions of multiply-adds'}",
        ylabel="right, % of test images",
    )
    axes.set_xlim(0, 1.05 * axes.dataLim.xmax)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return axes.figure


def _line(axes: Any, points: Sequence[tuple[float, float]], **more: Any) -> None:
    """Draw a line; one point alone gets a marker, so that it is seen."""
    axes.plot(*np.reshape(points, (-1, 2)).T, marker="o" if len(points) == 1 else None, markersize=4, **more)


def who_runs_what(
    columns: Sequence[str], classes: Sequence[str], rates: Sequence[Sequence[float]], overall: Sequence[float]
) -> Any:
    """Draw the share of all images, and of those of each class, that run each unit or go on past each exit.

    Args:
        columns: The names of the route's columns.
        classes: The names of the classes.
        rates: The shares by class and column, `[classes, columns]`.
        overall: The shares of all images, `[columns]`.

    Returns:
        The figure.
    """
    shape = {"sharey": True, "width_ratios": [1, min(len(classes), NAMED)]}
    ((all_of_them, each),) = grid(WIDTH, 1.5 + 0.2 * max(len(columns), 4), 1, 2, **shape)
    colours = {"aspect": "auto", "vmin": 0, "vmax": 1, "cmap": "viridis"}
    all_of_them.imshow(np.array([overall]).T, **colours)
    picture = each.imshow(np.array(rates).T, **colours)
    all_of_them.set_yticks(range(len(columns)), map(spoken, columns), fontsize=8)
    all_of_them.set_xticks([0], ["all"], fontsize=8, rotation=90)
    each.tick_params(left=False)
    every = max(1, -(-len(classes) // NAMED))
    each.set_xticks(range(0, len(classes), every), classes[::every], fontsize=8, rotation=90)
    each.figure.colorbar(picture, label="share")
    return each.figure


def shared_routes(shared: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Draw the commonest routes, with some of the images that share each (Fig. 5 of Wang et al.).

    What runs is filled. A line stands between two stages of the network, and between units and exits.

    Args:
        shared: The routes that an analysis found, the commonest first.
        columns: The names of the route's columns.

    Returns:
        The figure.
    """
    from matplotlib.image import imread

    shared = shared[:ROUTES]
    stages = [stage_of(name) for name in columns]
    between = [place for place, (one, other) in enumerate(itertools.pairwise(stages), start=1) if one != other]
    rows = grid(9, 0.75 * max(len(shared), 2), len(shared), 2, width_ratios=[1, 2.2])
    for (left, right), route in zip(rows, shared, strict=True):
        taken = np.array([route["runs"]], dtype=float)
        left.pcolormesh(taken, cmap="Blues", vmin=0, vmax=1.3, edgecolors="#5f6b76", linewidth=0.6)
        left.vlines(between, -0.15, 1.15, color="black", linewidth=1.6, clip_on=False)
        left.set_title(f"{route['images']} images, {100 * route['accuracy']:.1f}% right", fontsize=8, loc="left", pad=2)
        left.set(xlim=(0, max(taken.shape[1], 1)), ylim=(0, 1))
        left.set_axis_off()
        right.imshow(imread(io.BytesIO(base64.b64decode(route["examples"])), format="png"), interpolation="nearest")
        right.set_axis_off()
    return rows[0][0].figure


def stage_of(column: str) -> str:
    """Find the part of the network that a route's column belongs to: `layer2` for `layer2.0`, `exits` for all exits."""
    return "exits" if column.startswith("past ") else column.rpartition(".")[0] or column


def by_length(lengths: Sequence[Mapping[str, Any]]) -> Any:
    """Draw, by the number of units that run: how many images there are, their accuracy, and the time of one."""
    titles = ["images", "accuracy, %", "time of an image alone, ms"]
    images, accuracy, time = stacked(titles, "units that run", height=1.35)
    units = [row["units"] for row in lengths]
    images.bar(units, [row["images"] for row in lengths], color=GREY)
    accuracy.plot(units, [100 * row["accuracy"] for row in lengths], "o-", markersize=4, color=BLUE)
    time.plot(units, [row["milliseconds"] for row in lengths], "o-", markersize=4, color=ORANGE)
    time.set_ylim(0, 1.15 * max(row["milliseconds"] for row in lengths))
    return images.figure
