"""Kills at random moments: a run that was killed, however often, ends as one that was not."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.cli.command import ENVIRONMENT
from tests.hostile.place import SMALL, Finding, Tally, fingerprint

TRAIN = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "3",
         "--junctions", "skip,exit", *SMALL, "--device", "cpu"]  # fmt: skip


def try_kills(place: Path, count: int, seed: int = 0, processes: int = 1) -> Tally:
    """Kill a training so often, each time at a random moment, and resume it; then compare it with one left alone.

    Args:
        place: The workplace (`make_place`).
        count: The number of kills.
        seed: Of their moments.
        processes: How many processes train together. Of several, one that is chosen at random is killed.

    Returns:
        What was found.
    """
    tally, chosen, before = Tally(), random.Random(seed), fingerprint(place)
    started = time.perf_counter()
    code, errors = _run([*TRAIN, "--name", f"whole{processes}"], place, processes)
    assert code == 0, errors
    took = time.perf_counter() - started
    want = _result(place / "runs" / f"whole{processes}")
    number = 0
    while tally.cases < count:
        name, finished = f"killed{processes}-{number}", False
        number += 1
        while not finished and tally.cases < count:
            finished = not _kill(_words(place, name), place, processes, chosen.uniform(0.1, 1.1 * took), chosen)
            tally.cases += not finished
        if not finished:
            _, errors = _run(_words(place, name), place, processes)
        if not (place / "runs" / name / "record.json").exists():
            tally.findings.append(Finding("cannot be resumed", name, errors[-300:]))
        elif _result(place / "runs" / name) != want:
            tally.findings.append(Finding("silent difference", name))
    after = fingerprint(place)
    tally.findings += [Finding("file lost", name) for name in before if after.get(name) != before[name]]
    return tally


def _words(place: Path, name: str) -> list[str]:
    """What begins a run, or goes on with it."""
    begun = (place / "runs" / name / "run.yaml").exists()
    return ["convert", "--resume", f"runs/{name}"] if begun else [*TRAIN, "--name", name]


def _start(words: list[str], place: Path, processes: int) -> "subprocess.Popen[bytes]":
    launch = ["routekit_cli.start"]
    if processes > 1:
        launch = ["torch.distributed.run", "--nproc_per_node", str(processes), "-m", "routekit_cli.start"]
    command = [sys.executable, "-m", *launch, *words]
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def _run(words: list[str], place: Path, processes: int) -> tuple[int, str]:
    process = _start(words, place, processes)
    _, errors = process.communicate()
    return process.returncode, errors.decode()


def _kill(words: list[str], place: Path, processes: int, after: float, chosen: random.Random) -> bool:
    """Kill a command after so many seconds -> whether it was still at work."""
    process = _start(words, place, processes)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        # The launcher of several has no children at first. It ends the others when one has died.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if processes > 1 else []
        victim = int(chosen.choice(children)) if children else process.pid
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        process.communicate()
        with suppress(ProcessLookupError):  # of a launcher that was killed itself
            os.killpg(process.pid, signal.SIGKILL)
        return True
    process.communicate()
    return False


def _result(run: Path) -> object:
    record = json.loads((run / "record.json").read_text())
    weights = hashlib.sha256((run / "network" / "network.safetensors").read_bytes()).hexdigest()
    return record["accuracy"], record["flops"]["realized"], record["right"], weights
