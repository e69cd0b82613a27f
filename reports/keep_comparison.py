"""Keep a comparison as a recorded one: its plan, its cells' records and plans, its timings, and the report on them.

    python reports/keep_comparison.py comparisons/<name> reports/<group> --call PATH=NAME

`--call` replaces paths of one machine by a name. Networks are not kept. `routekit report reports/<group>` makes the
same report of what is kept, and a test compares.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from routekit.comparison.plan import ComparisonFolder
from routekit.comparison.report import report_comparison
from routekit.comparison.timing import TIMINGS

# The interactive page holds 5 MB of plotly: whoever wants it makes it.
PAGE = "index.html"


def main() -> int:
    """Copy, rename, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--call", action="append", default=[], metavar="PATH=NAME")
    arguments = parser.parse_args()
    folder, plan = ComparisonFolder.open(arguments.comparison)
    calls = [*(call.split("=", 1) for call in arguments.call), [f"{arguments.comparison}/", ""]]
    done = [folder.of(cell) for cell in plan.cells() if folder.of(cell).finished]
    files = [folder.path / "plan.yaml", folder.path / TIMINGS]
    files += [run.path / name for run in done for name in ("record.json", "run.yaml")]
    for file in filter(Path.exists, files):
        text = file.read_text()
        for path, name in calls:
            text = text.replace(path, name)
        if file.suffix == ".json":
            text = json.dumps(json.loads(text), indent=1) + "\n"
        kept = arguments.out / file.relative_to(folder.path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    with TemporaryDirectory() as made:
        for drawn in report_comparison(arguments.out, Path(made), "svg"):
            if drawn.name != PAGE:
                shutil.copy(drawn, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
