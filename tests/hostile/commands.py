"""Bad input for every command and every option: generated from the command line's own description of itself."""

import inspect
import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import typer

from routekit.manifest import MANIFEST
from tests.cli.command import in_process
from tests.hostile.place import PATIENCE, Finding, Hang, Tally, fingerprint, patience

# For each command what makes it cheap, so that a value that happens to be good does not train for minutes.
VALID: dict[str, list[str]] = {
    "convert": ["resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--dry-run"],
    "finetune": ["resnet20", "--weights", "none", "--data", "images", "--dry-run"],
    "compare": ["resnet20", "--weights", "runs/dense", "--data", "images", "--budgets", "60%", "--methods", "l1",
                "--dry-run"],
    "cascade": ["runs/dense", "runs/dense", "--target-flops", "60%"],
    "evaluate": ["runs/cascade"],
    "aim": ["runs/cascade", "--target-ms", "3"],
    "export": ["runs/cascade", "--out", "out"],
    "predict": ["compact", "images/test/class0/0.png"],
    "bench": ["runs/dense2", "--batch", "1"],  # is not there: a good one takes longer than anybody waits here
    "benchmark": ["runs/dense2", "--batch", "1"],  # likewise
    "report": ["runs/cascade", "--out", "report"],
    "models": ["resnet20"],
    "flops": ["resnet20"],
    "recipes show": ["default"],
    "recipes copy": ["default", "copied.yaml"],
    "recipes validate": ["mine.yaml"],
    "recipes list": [],
}  # fmt: skip
LONG = "x" * 10_000
NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e300",
    "1e-300",
    "",
    " ",
    "abc",
    "0x10",
    "1_0",
    "50%%",
    "9" * 40,
    "\x00",
    "٣",
]
PATHS = [
    "nowhere", "thesis.txt", "images", ".", "..", "/", "", "~", "pipe", "link", "locked", LONG, "a/" * 500,
    "thesis.txt/in",
    "runs", "compact/network.json", "bad\udcffname", "\x1b[2Jname", "--", "-", "/dev/null", "/proc/self/mem", "x\ny",
]  # fmt: skip
WORDS = [
    "",
    " ",
    "nothing",
    LONG,
    "\x1b[31mred",
    "a,b,,c",
    "{}",
    "[",
    "null",
    "🙂",
    "resnet1000000004",
    "../..",
    "%s%n",
    "`x`",
]
SETTINGS = [
    "=", "a=", "=1", "training=3", "training.epochs=inf", "training.epochs=1e9", "seed=99999999999999999999", "seed=-1",
    "training.batch_size=0", "data.mean=[a]", "data.std=[0]", "data.std=[.nan]", "data.input_size=100000000",
    "junctions=3", "x.y.z=1", "training.gate=*a", "training.precision=int4", "junctions.exit={at: {}}", "aim.ms=.inf",
    "routers.hidden=-1", "training.epochs={a: &b [*b]}", "target=[1]", f"{LONG}=1", "model.name=[]",
    "objective.distillation=-1",
]  # fmt: skip


def cases(seed: int, place: Path) -> Iterator[list[str]]:
    """Command lines in random order without end: each with one value that is probably bad, sometimes two."""
    del place
    chosen = random.Random(seed)
    kinds = sorted(VALID)
    every = [(command, parameter) for command in kinds for parameter in parameters(command)]
    while True:
        chosen.shuffle(every)
        for command, parameter in every:
            words = [*command.split(), *VALID[command]]
            for name in {parameter, chosen.choice(parameters(command)) if chosen.random() < 0.2 else parameter}:
                words = with_value(words, command, name, chosen)
            yield words


def parameters(command: str) -> list[Any]:
    """The arguments and options of a command."""
    from routekit_cli.main import app

    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    left_out = {"help", "open_", "device"}
    if command in ("bench", "benchmark", "report", "recipes copy"):  # there it means just the file that is named
        left_out.add("force")
    return [each for each in found.params if each.name not in left_out]


@cache
def kind_of(command: str, name: str) -> str:
    """The type of a parameter, in words."""
    from routekit_cli.main import app

    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    return str(get_type_hints(inspect.unwrap(found.callback)).get(name, str))


def with_value(words: list[str], command: str, parameter: Any, chosen: random.Random) -> list[str]:
    """A command line with a value for one of its parameters."""
    kind = kind_of(command, parameter.name)
    if "--set" in parameter.opts:
        value = chosen.choice(SETTINGS)
    elif "int" in kind or "float" in kind:
        value = chosen.choice(NUMBERS)
    elif "Path" in kind:
        value = chosen.choice(PATHS)
    else:
        value = chosen.choice([*WORDS, *NUMBERS, *PATHS])
    if parameter.param_type_name == "argument":
        at = len(command.split())
        rest = words[at:]
        plain = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
        replaced = chosen.randrange(plain) if plain else 0
        return [*words[:at], *rest[:replaced], value, *rest[replaced + 1 :]]
    option = max(parameter.opts, key=len)
    if getattr(parameter, "is_flag", False):
        return [*words, chosen.choice([*parameter.opts, *parameter.secondary_opts])]
    if option in words:
        at = words.index(option)
        return [*words[: at + 1], value, *words[at + 2 :]]
    return [*words, option, value]


def prepare(place: Path) -> None:
    """Things that stand in the way: a pipe, a link to nowhere, a folder without permission."""
    os.mkfifo(place / "pipe")
    (place / "link").symlink_to("gone")
    (place / "locked").mkdir(mode=0o500)


def try_commands(place: Path, count: int, seed: int = 0) -> Tally:
    """Run so many bad command lines. Files that were there before must be there afterwards, unchanged.

    Args:
        place: The workplace (`make_place`).
        count: The number of command lines.
        seed: Of their choice.

    Returns:
        What was found.
    """
    if not (place / "pipe").exists():
        prepare(place)
    tally, before = Tally(), fingerprint(place)
    for _, words in zip(range(count), cases(seed, place), strict=False):
        tally.cases += 1
        shown = " ".join(word[:60] for word in words).encode("utf-8", "backslashreplace").decode()
        try:
            with patience():
                done = in_process(*words, cwd=place)
        except Hang:
            tally.findings.append(Finding("hang", shown, f"over {PATIENCE} s"))
            continue
        except BaseException as error:  # whatever comes through is one
            tally.findings.append(Finding("traceback", shown, repr(error)[:300]))
            continue
        tally.refused += done.returncode != 0
        last = [*done.stderr.strip().splitlines(), ""][-1] if done.returncode else ""
        if "Traceback" in done.stderr or "--debug shows where" in done.stderr:
            tally.findings.append(Finding("traceback", shown, last[:300]))
        elif done.returncode not in (0, 1, 2) or (done.returncode and not done.stderr.strip()):
            tally.findings.append(Finding("exit code", shown, f"{done.returncode}: {last[:300]}"))
        elif done.returncode == 1:
            tally.findings.append(Finding("exit code 1 for bad input", shown, last[:300]))
        if "\x1b[2J" in done.stderr + done.stdout:
            tally.findings.append(Finding("terminal code", shown))
    after = fingerprint(place)
    for name, digest in before.items():
        if after.get(name) != digest and (name not in after or not name.endswith(MANIFEST)):
            tally.findings.append(Finding("file lost" if name not in after else "file changed", name))
    return tally
