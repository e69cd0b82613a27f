"""The long run: `python -m tests.hostile --long`, or `--commands 300 --files 2000`. It prints a JSON document."""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.hostile.commands import try_commands
from tests.hostile.damage import add_weights, try_damage
from tests.hostile.kills import try_kills
from tests.hostile.place import Tally, make_place
from tests.hostile.writes import operations, try_writes, two_networks


def main() -> int:
    """Run all parts -> 0 if nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="1,600 command lines, 10,500 damaged files, every write")
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    commands, files = (1600, 10500) if given.long else (given.commands, given.files)
    torch.set_num_threads(1)
    found, started = dict[str, Tally](), time.perf_counter()
    with TemporaryDirectory() as scratch:
        place = make_place(Path(scratch) / "a" / "b" / "c")  # what lies above is small, too
        found["bad command lines"] = try_commands(place, commands, given.seed)
        found["a training killed at a random moment"] = try_kills(place, 40 if given.long else 3, given.seed)
        together = try_kills(place, 10 if given.long else 1, given.seed, processes=2)
        found["two processes that train together, one of them killed"] = together
        add_weights(place)
        found["damaged files"] = try_damage(place, files, given.seed)
    for operation in operations(*two_networks()):
        tried = try_writes(operation, most=None if given.long else 10, seed=given.seed)
        found[f"a kill or a full disk: {operation.name}"] = tried
    document = {
        "seed": given.seed,
        "seconds": round(time.perf_counter() - started),
        "parts": {
            name: {"cases": each.cases, "refused": each.refused, "found": each.counts} for name, each in found.items()
        },
    }
    for name, each in found.items():
        for finding in each.findings:
            sys.stderr.write(f"{name}: {finding.kind}: {finding.what!r}: {finding.said!r}\n")
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if given.out is not None:
        given.out.write_text(text)
    return int(any(each.findings for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
