"""Pictures of recorded runs, after McGill and Perona (2017): accuracy against cost, and where images are answered.

Each is drawn from records alone: the same records give the same bytes.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routekit.errors import InputError
from routekit.report.comparison import Row, frontier, placed, scales
from routekit.runtime.runtime import need

FORMATS = ("svg", "png")
# The largest circle of a dataflow, points: all images are answered there.
LARGEST = 26.0
# Ten colours, then ten more with another marker.
_MARKERS = "osv"
# So many of the commonest routes are drawn.
ROUTES = 6


def known(kind: str) -> str:
    """The kind of picture. Raises InputError for one that there is not, or without what draws it."""
    if kind not in FORMATS:
        raise InputError(f"unknown format {kind!r}: {' or '.join(FORMATS)}")
    need("matplotlib", "report")
    return kind


def accuracy_against_cost(records: Sequence[dict[str, Any]]) -> Any:
    """Error rate against mean cost (Fig. 5, 9 and 10): one line for each kind of network, one point for each run.

    Runs that differ in nothing but the seed are one point, their mean, with bars of one standard deviation.
    """
    axes = _axes(7, 4.5)
    points: dict[str, dict[Any, list[tuple[float, float]]]] = {}
    for record in records:
        flops, group = record["flops"], points.setdefault(kind_of(record), {})
        place = record["flops"]["target"] or flops["dense"]
        group.setdefault(place, []).append((flops["realized"], 1 - record["accuracy"]["routed"]))
    for number, (kind, group) in enumerate(sorted(points.items())):
        colour = f"C{number}"
        line = sorted((*np.mean(found, axis=0), np.std([error for _, error in found])) for found in group.values())
        costs, errors, spread = zip(*line, strict=True)
        axes.errorbar(costs, errors, yerr=spread, color=colour, marker="o", markersize=4, capsize=2, label=kind)
    dense = {(record["flops"]["dense"], 1 - record["accuracy"]["dense"]) for record in records}
    axes.plot(*zip(*sorted(dense), strict=True), "k*", markersize=9, label="dense")
    axes.set_xlabel("mean cost of an image, MACs (fvcore: 1 multiply-add = 1 FLOP)")
    axes.set_ylabel("error rate, test images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return axes.figure


def frontier_picture(table: Sequence[Row]) -> Any:
    """Accuracy against cost, one line for each method, bars of one standard deviation over seeds.

    A panel for each way to tell the cost: MACs and, of what was timed, milliseconds in each runtime, at each batch
    size; at most three beside each other.
    """
    panels = scales(table)
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    drawn = _grid(8 if across == 1 else 5 * across, 5 * down, down, across).ravel()
    methods = sorted({row.method for row in table})
    for panel, (title, cost) in zip(drawn, panels.items(), strict=False):
        for number, method in enumerate(methods):
            own = placed([row for row in table if row.method == method], cost)
            line = sorted((cost(row), row.accuracy, row.spread) for row in own)
            costs, accuracies, spreads = zip(*line, strict=True) if line else ((), (), ())
            marker = _MARKERS[number // 10 % len(_MARKERS)]
            panel.errorbar(
                costs, accuracies, yerr=spreads, color=f"C{number % 10}", marker=marker, capsize=2, label=method
            )
        best = frontier(table, cost)
        panel.plot([cost(row) for row in best], [row.accuracy for row in best], color="#9aa0a6", linewidth=6, alpha=0.4)
        panel.set_xlabel(title)
        panel.set_ylabel("accuracy, % of the test images")
        panel.grid(alpha=0.3)
    for spare in drawn[len(panels) :]:
        spare.set_axis_off()
    drawn[-1].legend(*panel.get_legend_handles_labels(), fontsize=8, ncols=2)
    return panel.figure


def dataflow(records: Sequence[dict[str, Any]]) -> Any:
    """Where images are answered (Fig. 6 and 7): a row for each run with exits, a circle for each classifier.

    A circle's area is the share of the images that are answered there; on the left its colour says how many of them
    rightly, on the right its slices of which classes they are. Raises InputError if no run has exits.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable

    records = _with_exits(records)
    count = max(len(record["exits"]) for record in records)
    left, right = _axes(2.2 + 0.9 * count, 1.4 + 0.55 * len(records), columns=2)
    colours = colormaps["viridis"]
    for row, record in enumerate(records):
        places = range(len(record["exits"]))
        for axes in (left, right):
            axes.plot(places, [row] * len(places), color="#9aa0a6", linewidth=1, zorder=1)
        for place, leaving in enumerate(record["exits"]):
            size = LARGEST * math.sqrt(leaving["stops"])
            if not size:
                continue
            left.plot(place, row, "o", markersize=size, color=colours(leaving["accuracy"]), zorder=2)
            _slices(right, place, row, size, leaving["answered"])
    for axes in (left, right):
        axes.set_xticks(range(count))
        axes.set_xlabel("classifier")
        axes.set_xlim(-0.6, count - 0.4)
        axes.set_ylim(len(records) - 0.4, -0.6)
    left.set_yticks(range(len(records)), [_label(record) for record in records], fontsize=7)
    right.set_yticks([])
    left.figure.colorbar(ScalarMappable(cmap=colours), ax=left, label="of them right")
    classes = records[0]["classes"]
    handles = [right.plot([], [], "o", color=_colour(index))[0] for index in range(len(classes))]
    right.legend(handles, classes, fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    return left.figure


def dataflow_over_training(record: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> Any:
    """Where validation images are answered, from epoch to epoch (Fig. 8); `metrics` are the lines of a run's log.

    Raises InputError if the run has no exits.
    """
    (record,) = _with_exits([record])
    count = len(record["exits"]) - 1
    lines = [line for line in metrics if line["kind"] == "validation"]
    past = np.array([[1.0, *line["run_rate"][-count:], 0.0] for line in lines])
    axes = _axes(2 + 0.5 * count, 4)
    picture = axes.imshow(past[:, :-1] - past[:, 1:], aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_xlabel("classifier")
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


def save(figure: Any, path: Path) -> None:
    """Write a figure, by the ending of `path`. Raises InputError if it cannot be written."""
    import matplotlib

    kind = path.suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "routekit"}):
        try:
            figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None}, dpi=120)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from error


def as_svg(figure: Any) -> str:
    """A figure as the text of an SVG document."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "routekit"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _axes(width: float, height: float, columns: int = 1) -> Any:
    (row,) = _grid(width, height, 1, columns)
    return row if columns > 1 else row[0]


def _grid(width: float, height: float, rows: int, columns: int, **more: Any) -> Any:
    need("matplotlib", "report")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots(rows, columns, squeeze=False, **more)


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


def training(metrics: Sequence[dict[str, Any]]) -> Any:
    """How a run learned: accuracy, cost against what was wanted, and the number of routes, on validation images."""
    steps = [line for line in metrics if line["kind"] == "step"]
    checks = [line for line in metrics if line["kind"] == "validation"]
    accuracy, cost, routes = _axes(12, 3.4, columns=3)
    at = [line["step"] for line in checks]
    accuracy.plot(at, [100 * line["accuracy"] for line in checks], marker="o", color="C0")
    accuracy.set_ylabel("accuracy, % of the validation images")
    loss = accuracy.twinx()
    loss.plot(
        [line["step"] for line in steps], [line["losses"]["classification"] for line in steps], color="C7", alpha=0.4
    )
    loss.set_ylabel("classification loss, training batches", color="C7")
    cost.plot(
        [line["step"] for line in steps], [100 * line["realized"] for line in steps], color="C1", label="realised"
    )
    cost.plot([line["step"] for line in steps], [100 * line["wanted"] for line in steps], "k--", lw=1, label="wanted")
    cost.set_ylabel("mean cost, % of dense MACs")
    cost.legend(fontsize=8)
    routes.plot(at, [line["routes"] for line in checks], marker="o", color="C2")
    routes.set_ylabel("routes that are taken")
    for axes in (accuracy, cost, routes):
        axes.set_xlabel("training step")
        axes.grid(alpha=0.3)
    return accuracy.figure


def who_runs_what(columns: Sequence[str], classes: Sequence[str], rates: Sequence[Sequence[float]]) -> Any:
    """Of the images of each class, the share that runs each unit, or goes on past each exit."""
    axes = _axes(2.5 + 0.25 * len(columns), 1.5 + 0.25 * len(classes))
    picture = axes.imshow(np.array(rates), aspect="auto", vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.figure.colorbar(picture, label="share of the class's images")
    return axes.figure


def shared_routes(shared: Sequence[dict[str, Any]]) -> Any:
    """The commonest routes (Fig. 5 of Wang et al.): filled is what runs, and some of the images that share the route.

    `shared` is what an analysis found, the commonest first.
    """
    from matplotlib.image import imread

    shared = shared[:ROUTES]
    rows = _grid(9, 0.75 * len(shared), len(shared), 2, width_ratios=[1, 2.2])
    for (left, right), route in zip(rows, shared, strict=True):
        taken = np.array([route["runs"]], dtype=float)
        left.pcolormesh(taken, cmap="Blues", vmin=0, vmax=1.3, edgecolors="#5f6b76", linewidth=0.6)
        left.set_title(f"{route['images']} images, {100 * route['accuracy']:.1f}% right", fontsize=8, loc="left", pad=2)
        left.set_xlim(0, max(taken.shape[1], 1))
        right.imshow(imread(io.BytesIO(base64.b64decode(route["examples"])), format="png"), interpolation="nearest")
        for axes in (left, right):
            axes.set_axis_off()
    return rows[0][0].figure


def by_length(lengths: Sequence[dict[str, Any]]) -> Any:
    """How many images there are of each length of the route, how right they are, and how long they take."""
    axes = _axes(7, 3.4)
    units = [row["units"] for row in lengths]
    axes.bar(units, [row["images"] for row in lengths], color="#9aa0a6")
    axes.set_xlabel("units that run")
    axes.set_ylabel("images")
    right = axes.twinx()
    right.plot(units, [100 * row["accuracy"] for row in lengths], "o-", color="C0", label="accuracy, %")
    most = max(row["milliseconds"] for row in lengths)
    scaled = [100 * row["milliseconds"] / most for row in lengths]
    right.plot(units, scaled, "s--", color="C3", label=f"time of an image alone, % of {most:.2f} ms")
    right.set_ylim(0, 105)
    right.legend(fontsize=8, loc="lower right")
    return axes.figure
