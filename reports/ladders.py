"""Tables of ladders, from what `measure_ladder.py` and `measure_aims.py` wrote into reports/ladders/."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from routekit.report.drawing import BLUE, GREY, ORANGE, blank

HERE = Path(__file__).parent / "ladders"


def ladder(name: str) -> str:
    """Each form alone, then each choice: what was chosen for which aim, its accuracy, its time as driven."""
    report = json.loads((HERE / f"{name}.json").read_text())
    dense = next(row for row in report["rows"] if row["passes"] == "dense fp32")
    lines = ["| passes | aim | ms | times as fast | p99 | MACs | bytes | val | test | over the best static |"]
    lines.append("|---" * lines[0].count("|", 1) + "|")
    for row in sorted(report["rows"], key=lambda row: (row["aim"] is not None, row["ms"])):
        over = f"{row['over_static']:+.2f} ± {row['standard_error']:.2f}" if "over_static" in row else ""
        asked = "" if row["aim"] is None else row["aim"].partition(" (")[0]
        wanted = f" ({row['target_ms']:.2f} ms)" if row.get("target_ms") else ""
        mean = " (mean)" if row["average"] else ""
        lines.append(
            f"| {row['passes']}{mean} | {asked}{wanted} | {row['ms']:.2f} | {dense['ms'] / row['ms']:.2f} "
            f"| {row['p99']:.2f} | {row['macs'] / 1e6:.0f}M | {row['bytes'] / 1e6:.1f} MB "
            f"| {100 * row['validation']:.2f}% | {100 * row['test']:.2f}% | {over} |"
        )
    return "\n".join([*lines, "", _where(report, f"{report['images']} test images, seed {report['seed']}")])


@dataclass(frozen=True)
class Mean:
    """The mean over seeds of a form alone, or of what was chosen for an aim.

    Attributes:
        name: The form and its precision, or the aim.
        seeds: How many.
        ms: Milliseconds an image.
        faster: How many times as fast as the dense network in float32.
        macs: Multiply-adds.
        bytes: Of the files.
        test: The accuracy on test images, per cent.
        over: The lead over the best form alone that is not slower, and its standard error, points; None for forms.
    """

    name: str
    seeds: int
    ms: float
    faster: float
    macs: float
    bytes: float
    test: float
    over: tuple[float, float] | None


def over_seeds(name: str) -> tuple[list[Mean], list[Mean], str]:
    """Means over the seeds of a ladder: of each form alone, and of each aim, the fastest first; and where."""
    reports = [json.loads(path.read_text()) for path in sorted(HERE.glob(f"{name}-seed*.json"))]
    forms: dict[str, list[dict[str, Any]]] = {}
    asked: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        dense = next(row["ms"] for row in report["rows"] if row["passes"] == "dense fp32")
        for row in report["rows"]:
            kind, key = (forms, row["passes"]) if row["aim"] is None else (asked, row["aim"].partition(" (")[0])
            kind.setdefault(key, []).append(row | {"faster": dense / row["ms"]})
    alone, chosen = (sorted((_mean(*item) for item in kind.items()), key=lambda row: row.ms) for kind in (forms, asked))
    numbers = ", ".join(str(report["seed"]) for report in reports)
    where = _where(reports[0], f"{reports[0]['images']} test images, seeds {numbers}")
    return alone, chosen, where


def _mean(name: str, rows: Sequence[dict[str, Any]]) -> Mean:
    def of(key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    over = None
    if all(row["aim"] is not None and "over_static" in row for row in rows):
        over = of("over_static"), sum(row["standard_error"] ** 2 for row in rows) ** 0.5 / len(rows)
    return Mean(name, len(rows), of("ms"), of("faster"), of("macs"), of("bytes"), 100 * of("test"), over)


def ladder_seeds(name: str) -> str:
    """Means over the seeds of a ladder: each form alone, then each aim. Errors are of paired test images."""
    alone, chosen, where = over_seeds(name)
    lines = ["| passes, or aim | seeds | ms | times as fast | MACs | test | over the best static |"]
    lines.append("|---" * lines[0].count("|", 1) + "|")
    for row in (*alone, *chosen):
        over = "" if row.over is None else "{:+.2f} ± {:.2f}".format(*row.over)
        figures = f"{row.seeds} | {row.ms:.2f} | {row.faster:.2f} | {row.macs / 1e6:.0f}M | {row.test:.2f}%"
        lines.append(f"| {row.name} | {figures} | {over} |")
    return "\n".join([*lines, "", where])


# Of all forms alone, what a reader of the first page compares with.
KNOWN = {
    "dense fp32": "the network as it is",
    "dense int8": "int8, nothing trained",
    "5-l1-50pct int8": "L1 pruning to 50% of the multiply-adds, int8",
    "3-l1-25pct int8": "L1 pruning to 25%, int8",
    "1-depgraph-12pct int8": "DepGraph pruning to 12%, int8",
}


def ladder_first(name: str) -> str:
    """The short table of the first page: what other tools make as well, then what was chosen."""
    alone, chosen, where = over_seeds(name)
    lines = ["|  | accuracy | milliseconds | times as fast | megabytes |", "|---|---|---|---|---|"]
    known = [replace(row, name=KNOWN[row.name]) for row in alone if row.name in KNOWN]
    ours = [replace(row, name=f"**routekit: {row.name}**") for row in chosen]
    for row in sorted([*known, *ours], key=lambda row: -row.ms):
        lines.append(f"| {row.name} | {row.test:.2f}% | {row.ms:.2f} | {row.faster:.1f} | {row.bytes / 1e6:.1f} |")
    return "\n".join([*lines, "", where])


def picture(name: str) -> Any:
    """Draw accuracy against milliseconds: forms alone in float32 and in int8, and what was chosen."""
    alone, chosen, _ = over_seeds(name)
    figure = blank(7, 4)
    axes = figure.subplots()
    kinds = {
        "static, float32": ([row for row in alone if row.name.endswith("fp32")], GREY, "s"),
        "static, int8": ([row for row in alone if row.name.endswith("int8")], ORANGE, "o"),
        "routekit's choices": (chosen, BLUE, "D"),
    }
    for label, (rows, colour, marker) in kinds.items():
        axes.plot([row.ms for row in rows], [row.test for row in rows], marker, color=colour, label=label)
    for row in alone:
        if row.name in KNOWN:
            form, _, _ = row.name.removeprefix("0-").rpartition(" ")
            called = form.partition("-")[2] or form
            axes.annotate(called, (row.ms, row.test), (0, -13), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 4, 6]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("milliseconds an image, batch 1")
    axes.set_ylabel("accuracy on test images, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def aims(name: str) -> str:
    """Milliseconds asked, and realised on test images in a process of its own."""
    rows = json.loads((HERE / f"{name}.json").read_text())
    lines = ["| command | asked | realised | off | p50 | p99 | test | passes |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if "error" in row:
            lines.append(f"| `{row['aim']}` | | | | | | | {row['error']} |")
            continue
        lines.append(
            f"| `{row['aim']}` | {row['target_ms']:.3f} | {row['mean_ms']:.3f} | {100 * row['off']:+.1f}% "
            f"| {row['p50']:.3f} | {row['p99']:.3f} | {100 * row['accuracy']:.2f}% | {row['passes']} |"
        )
    done = [row for row in rows if "error" not in row]
    return "\n".join([*lines, "", _where(done[0], "milliseconds an image, means over all test images")])


def _where(report: dict[str, Any], what: str) -> str:
    place = report["environment"]
    return f"{what}; {report['threads']} threads; {place['device']}, {place['date']}."
