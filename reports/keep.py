"""Keep a finished run as a recorded one: measure it again on the test set, and copy what is worth keeping.

    python reports/keep.py runs/<run> resnet56-cifar10-jpeg --command "routekit convert ..." --call PATH=NAME

Accuracy and routes must come out as the run wrote them; costs are as this version counts them. `--call` replaces paths
of one machine by a name.
"""

import argparse
import json
import sys
from pathlib import Path

from routekit.pipeline.machine import Machine
from routekit.pipeline.measure import evaluate_run
from routekit.report.record import read_record

HERE = Path(__file__).parent


def main() -> int:
    """Measure, compare, copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("group")
    parser.add_argument("--command", required=True)
    parser.add_argument("--call", action="append", default=[], metavar="PATH=NAME")
    arguments = parser.parse_args()
    record = read_record(arguments.run)
    again = evaluate_run(arguments.run, None, Machine())
    for key in ("accuracy", "routes"):
        if again[key] != record[key]:
            sys.stderr.write(f"{key} was {record[key]}, and is {again[key]}\n")
            return 1
    record |= {key: again[key] for key in ("flops", "shuffled_accuracy")}
    folder = HERE / arguments.group / arguments.run.name
    folder.mkdir(parents=True, exist_ok=True)
    # A cascade learns nothing, and has no metrics.
    names = [name for name in ("run.yaml", "metrics.jsonl") if (arguments.run / name).exists()]
    files = {name: (arguments.run / name).read_text() for name in names}
    files["record.json"] = json.dumps(record, indent=2) + "\n"
    for name, text in files.items():
        for call in [*arguments.call, f"{arguments.run.parent}/="]:
            path, _, called = call.partition("=")
            text = text.replace(path, called)
        if name == "record.json":
            text = json.dumps(json.loads(text) | {"command": arguments.command}, indent=2) + "\n"
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
