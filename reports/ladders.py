"""Tables of ladders, from what `measure_ladder.py` and `measure_aims.py` wrote into reports/ladders/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def ladder_seeds(name: str) -> str:
    """Means over the seeds of a ladder: each form alone, then each aim. Errors are of paired test images."""
    reports = [json.loads(path.read_text()) for path in sorted(HERE.glob(f"{name}-seed*.json"))]
    forms: dict[str, list[dict[str, Any]]] = {}
    asked: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        dense = next(row["ms"] for row in report["rows"] if row["passes"] == "dense fp32")
        for row in report["rows"]:
            kind, key = (forms, row["passes"]) if row["aim"] is None else (asked, row["aim"].partition(" (")[0])
            kind.setdefault(key, []).append(row | {"faster": dense / row["ms"]})

    def mean(rows: Sequence[dict[str, Any]], key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    lines = ["| passes, or aim | seeds | ms | times as fast | MACs | test | over the best static |"]
    lines.append("|---" * lines[0].count("|", 1) + "|")
    for kind in (forms, asked):
        for key, rows in sorted(kind.items(), key=lambda item: mean(item[1], "ms")):
            over = ""
            if all("over_static" in row for row in rows) and kind is asked:
                error = sum(row["standard_error"] ** 2 for row in rows) ** 0.5 / len(rows)
                over = f"{mean(rows, 'over_static'):+.2f} ± {error:.2f}"
            lines.append(
                f"| {key} | {len(rows)} | {mean(rows, 'ms'):.2f} | {mean(rows, 'faster'):.2f} "
                f"| {mean(rows, 'macs') / 1e6:.0f}M | {100 * mean(rows, 'test'):.2f}% | {over} |"
            )
    numbers = ", ".join(str(report["seed"]) for report in reports)
    return "\n".join([*lines, "", _where(reports[0], f"{reports[0]['images']} test images, seeds {numbers}")])


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
