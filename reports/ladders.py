"""Tables of ladders, from what `measure_ladder.py` and `measure_aims.py` wrote into reports/ladders/."""

import json
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
