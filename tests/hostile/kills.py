"""Kills at random moments: a run that was killed, however often, ends as one that was not."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.command import ENVIRONMENT, in_process
from tests.hostile.place import SMALL, Finding, Tally, fingerprint

TRAIN = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "3",
         "--junctions", "skip,exit", *SMALL, "--device", "cpu"]  # fmt: skip


def try_kills(place: Path, count: int, seed: int = 0) -> Tally:
    """Kill a training so often, each time at a random moment, and resume it; then compare it with one left alone.

    Args:
        place: The workplace (`make_place`).
        count: The number of kills.
        seed: Of their moments.

    Returns:
        What was found.
    """
    tally, chosen, before = Tally(), random.Random(seed), fingerprint(place)
    started = time.perf_counter()
    done = in_process(*TRAIN, "--name", "whole", cwd=place)
    assert done.returncode == 0, done.stderr
    took = time.perf_counter() - started + 5.0  # with what a process of its own imports
    want = _result(place / "runs" / "whole")
    number = 0
    while tally.cases < count:
        name = f"killed{number}"
        number += 1
        words = [*TRAIN, "--name", name]
        while tally.cases < count:
            process = subprocess.Popen(
                [sys.executable, "-m", "routekit_cli.start", *words],
                cwd=place,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            try:
                process.wait(chosen.uniform(0.1, 1.1 * took))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                tally.cases += 1
                begun = (place / "runs" / name / "run.yaml").exists()
                words = ["convert", "--resume", f"runs/{name}"] if begun else [*TRAIN, "--name", name]
                continue
            _, errors = process.communicate()
            if process.returncode:
                tally.findings.append(Finding("cannot be resumed", name, errors.decode()[-300:]))
            break
        done = in_process(*words, cwd=place)
        if done.returncode and "holds a run" not in done.stderr:
            tally.findings.append(Finding("cannot be resumed", name, done.stderr[-300:]))
        elif _result(place / "runs" / name) != want:
            tally.findings.append(Finding("silent difference", name))
    after = fingerprint(place)
    tally.findings += [Finding("file lost", name) for name in before if after.get(name) != before[name]]
    return tally


def _result(run: Path) -> object:
    record = json.loads((run / "record.json").read_text())
    return record["accuracy"], record["flops"]["realized"], record["right"]
