"""Pictures of one run: how it learned, and what its network does with images. Each is drawn from records alone."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from routekit.report.drawing import BLUE, GREEN, GREY, ORANGE, WIDTH, grid, stacked, whole

# So many of the commonest routes are drawn.
ROUTES = 6
# Of so many classes the names are written; of more, of some.
NAMED = 20


def training(record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Any:
    """How a run learned: accuracy, loss, cost against what was wanted, and, where there are several, the routes."""
    steps = [line for line in metrics if line["kind"] == "step"]
    checks = [line for line in metrics if line["kind"] == "validation"]
    several = any(line["routes"] > 1 for line in checks)
    titles = ["accuracy, % of the validation images", "classification loss, training batches"]
    titles += ["mean cost, % of the dense MACs", *(["routes that are taken"] if several else [])]
    accuracy, loss, cost, *routes = stacked(titles, "training step")
    at, scale = [line["step"] for line in checks], 100 * share_of_the_dense(record, steps)
    accuracy.plot(at, [100 * line["accuracy"] for line in checks], marker="o", markersize=4, color=BLUE)
    _line(loss, [(line["step"], line["losses"]["classification"]) for line in steps], color=GREY)
    # Until it is measured for the first time, the log says that all of the network runs.
    known = itertools.dropwhile(lambda line: line["realized"] == 1, steps)
    _line(cost, [(line["step"], scale * line["realized"]) for line in known], color=ORANGE)
    cost.plot(at, [scale * line["realized"] for line in checks], "o", markersize=4, color=ORANGE, label="realised")
    wanted = [(line["step"], scale * line["wanted"]) for line in steps]
    _line(cost, wanted, color="black", linestyle="--", linewidth=1, label="wanted")
    cost.set_ylim(0, 1.1 * max(y for drawn in cost.lines for y in drawn.get_ydata()))
    cost.legend(fontsize=8, frameon=False)
    for panel in routes:
        panel.plot(at, [line["routes"] for line in checks], marker="o", markersize=4, color=GREEN)
        whole(panel.yaxis)
    return accuracy.figure


def share_of_the_dense(record: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> float:
    """What the network that was trained costs of the one that was brought, which may have been pruned since.

    The log counts in the former's costs: what it wanted in the end is the target of the record, MACs.
    """
    target = record["flops"]["target"]
    if target is None or not steps:
        return 1.0
    return float(target / record["flops"]["dense"] / steps[-1]["wanted"])


def _line(axes: Any, points: Sequence[tuple[float, float]], **more: Any) -> None:
    """A line, that is seen if it is but one point."""
    axes.plot(*np.reshape(points, (-1, 2)).T, marker="o" if len(points) == 1 else None, markersize=4, **more)


def who_runs_what(
    columns: Sequence[str], classes: Sequence[str], rates: Sequence[Sequence[float]], overall: Sequence[float]
) -> Any:
    """Of all images, and of those of each class, the share that runs each unit, or goes on past each exit.

    rates:    [classes][columns]
    overall:  [columns]
    """
    every = max(1, -(-len(classes) // NAMED))
    shape = {"sharey": True, "width_ratios": [1, min(len(classes), NAMED)]}
    ((all_of_them, each),) = grid(WIDTH, 1.5 + 0.2 * max(len(columns), 4), 1, 2, **shape)
    all_of_them.imshow(np.array([overall]).T, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    picture = each.imshow(np.array(rates).T, aspect="auto", vmin=0, vmax=1, cmap="viridis")
    all_of_them.set_yticks(range(len(columns)), columns, fontsize=8)
    all_of_them.set_xticks([0], ["all"], fontsize=8, rotation=90)
    each.tick_params(left=False)
    places = range(0, len(classes), every)
    each.set_xticks(places, [classes[place] for place in places], fontsize=8, rotation=90)
    each.figure.colorbar(picture, label="share of the images")
    return each.figure


def shared_routes(shared: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """The commonest routes (Fig. 5 of Wang et al.): filled is what runs, and some of the images that share the route.

    `shared` is what an analysis found, the commonest first. A line stands between two stages of the network, and
    between units and exits.
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
        left.set_xlim(0, max(taken.shape[1], 1))
        left.set_ylim(0, 1)
        right.imshow(imread(io.BytesIO(base64.b64decode(route["examples"])), format="png"), interpolation="nearest")
        for axes in (left, right):
            axes.set_axis_off()
    return rows[0][0].figure


def stage_of(column: str) -> str:
    """To which part of the network a column of a route belongs: `layer2` for `layer2.0`, `exits` for all exits."""
    return "exits" if column.startswith("past ") else column.rpartition(".")[0] or column


def by_length(lengths: Sequence[Mapping[str, Any]]) -> Any:
    """How many images there are of each length of the route, how right they are, and how long they take."""
    titles = ["images", "accuracy, %", "time of an image alone, ms"]
    images, accuracy, time = stacked(titles, "units that run", height=1.35)
    units = [row["units"] for row in lengths]
    images.bar(units, [row["images"] for row in lengths], color=GREY)
    accuracy.plot(units, [100 * row["accuracy"] for row in lengths], "o-", markersize=4, color=BLUE)
    time.plot(units, [row["milliseconds"] for row in lengths], "o-", markersize=4, color=ORANGE)
    time.set_ylim(0, 1.15 * max(row["milliseconds"] for row in lengths))
    return images.figure
