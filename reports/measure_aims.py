"""Milliseconds asked against milliseconds realised: one ladder, many aims, each by `routekit aim` as a user runs it.

    python reports/measure_aims.py runs/ladder onnx:1:2.0 onnx:64:1.2 torch:1:6 openvino:1:2.5 --out aims.json

An aim is runtime:batch:ms. Each works on a copy of the run. The realised mean is that of the record: test images as
they come, in a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def main() -> None:
    """Print a table, and write the records' entries where --out says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("aims", nargs="+")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / "run"
        shutil.copytree(given.run, copy)
        for aim in given.aims:
            runtime, batch, ms = aim.split(":")
            options = ["--runtime", runtime, "--batch", batch, "--target-ms", ms]
            command = [sys.executable, "-m", "routekit_cli.main", "aim", str(copy), *options, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            row: dict[str, Any] = {"aim": f"routekit aim RUN {' '.join(options)}"}
            if done.returncode:
                row["error"] = done.stderr.strip().splitlines()[-1]
            else:
                record = json.loads(done.stdout)
                taken = record["time"]
                row |= {
                    key: taken[key] for key in ("runtime", "batch", "threads", "target_ms", "mean_ms", "p50", "p99")
                }
                row |= {"off": taken["mean_ms"] / taken["target_ms"] - 1, "accuracy": record["accuracy"]["routed"]}
                row["passes"] = " > ".join(f"{each['form']} {each['precision']}" for each in record["passes"])
                row["environment"] = record["environment"]
            rows.append(row)
            off = f"{100 * row['off']:+.1f}%" if "off" in row else row["error"]
            said = f"{row['aim']}: {row.get('mean_ms', float('nan')):.3f} ms, {off}  {row.get('passes', '')}"
            sys.stdout.write(said + "\n")
            sys.stdout.flush()
    if given.out is not None:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
