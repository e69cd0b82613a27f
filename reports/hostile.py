"""The table of a long run of `tests/hostile`, from what it wrote into reports/hostile/."""

import json
from pathlib import Path

HERE = Path(__file__).parent / "hostile"


def hostile(name: str) -> str:
    """Each part: how many cases, how many were refused in one line, and what was found that must not be."""
    report = json.loads((HERE / f"{name}.json").read_text())
    lines = ["| part | cases | refused | found |", "|---|---|---|---|"]
    for part, each in report["parts"].items():
        found = ", ".join(f"{kind}: {count}" for kind, count in each["found"].items()) or "nothing"
        lines.append(f"| {part} | {each['cases']:,} | {each['refused']:,} | {found} |")
    return "\n".join([*lines, "", f"Seed {report['seed']}, {report['seconds']:,} s."])
