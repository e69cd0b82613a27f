"""Damaged files of every format: each is refused in one line, or gives what the undamaged one gives."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.weights import read_state_dict
from routekit.comparison.plan import ComparisonFolder
from routekit.data.decode import decode
from routekit.data.preprocessing import Preprocessing
from routekit.errors import RoutekitError
from routekit.formats.checkpoint import load
from routekit.manifest import MANIFEST, unverified
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import load_recipe
from routekit.report.record import read_record
from routekit.runtime.load import load_runtime
from tests.hostile.place import PATIENCE, Finding, Hang, Tally, patience

# Something that a file is opened by -> what it says, to compare; None where only a refusal or none can be told.
Open = Callable[[Path], Any]


def images() -> Tensor:
    """Some images as a network takes them."""
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def answers_of_checkpoint(file: Path) -> Tensor:
    """What a checkpoint answers."""
    return load(file.parent).predict(images())


def answers_of_export(file: Path) -> Tensor:
    """What an exported folder answers."""
    return load_runtime(file.parent)(images()).logits


# The file, and how it is opened. What is opened is a copy of its folder.
FORMATS: dict[str, Open] = {
    "compact/network.json": answers_of_checkpoint,
    "compact/network.safetensors": answers_of_checkpoint,
    f"compact/{MANIFEST}": answers_of_checkpoint,
    "onnx/batch.onnx": answers_of_export,
    "onnx/single.onnx": answers_of_export,
    "passes/pass-0.onnx": answers_of_export,
    "passes/pass-1.onnx": answers_of_export,
    f"passes/{MANIFEST}": answers_of_export,
    "runs/cascade/run.yaml": lambda file: RunFolder.open(file.parent)[1].model_dump_json(),
    "runs/cascade/record.json": lambda file: read_record(file.parent),
    "mine.yaml": lambda file: load_recipe(str(file)).to_yaml(),
    "weights.safetensors": lambda file: read_state_dict(str(file)),
    "weights.pt": lambda file: read_state_dict(str(file)),
    "images/test/class0/0.png": lambda file: decode([str(file)], Preprocessing((16, 16), 3)),
    "comparison/plan.yaml": lambda file: ComparisonFolder.open(file.parent)[1].model_dump_json(),
}
# Formats that a manifest vouches for: a change has to be refused.
VOUCHED = ("compact/network", "onnx/", "passes/pass")
TOKENS = [
    "NaN",
    "Infinity",
    "-1",
    "1e999",
    "null",
    "true",
    '""',
    "[]",
    "{}",
    "9" * 50,
    '"\\u0000"',
    "[[[[[[[[",
    '"../../x"',
]


def damaged(content: bytes, chosen: random.Random) -> bytes:
    """One random change: bits, bytes, a cut, something twice, or another word in a text."""
    made = bytearray(content)
    at = chosen.randrange(max(1, len(made)))
    kind = chosen.randrange(8)
    if kind == 0 and made:
        made[at] ^= 1 << chosen.randrange(8)
    elif kind == 1:
        made[at : at + chosen.randrange(1, 64)] = chosen.randbytes(chosen.randrange(64))
    elif kind == 2:
        del made[at:]
    elif kind == 3:
        made[at:at] = made[at : at + chosen.randrange(1, 512)]
    elif kind == 4:
        made[at : at + chosen.randrange(1, 4096)] = b""
    elif kind == 5:
        made = bytearray(chosen.randbytes(chosen.randrange(200)))
    else:
        return _other_word(content, chosen)
    return bytes(made)


def _other_word(content: bytes, chosen: random.Random) -> bytes:
    """Put another token in the place of a number, a word or a key of a text."""
    import re

    found = list(re.finditer(rb"-?\d+\.?\d*(?:[eE][+-]?\d+)?|\"[^\"]{0,60}\"|\w+", content[:200_000]))
    if not found:
        return content[::-1]
    place = chosen.choice(found)
    return content[: place.start()] + chosen.choice(TOKENS).encode() + content[place.end() :]


def same(one: Any, other: Any) -> bool:
    """Whether two files say the same."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    return (
        bool(one == other)
        if not isinstance(one, dict)
        else json.dumps(one, default=str) == json.dumps(other, default=str)
    )


def add_weights(place: Path) -> None:
    """Weights in two formats, and the plan of a comparison."""
    from safetensors.torch import save_file

    from tests.cli.command import in_process

    state = {name: tensor.contiguous() for name, tensor in load(place / "compact").state_dict().items()}
    save_file(state, place / "weights.safetensors")
    torch.save(state, place / "weights.pt")
    done = in_process(
        "compare", "resnet20", "--weights", "runs/dense", "--data", "images", "--budgets", "60%", "--methods", "firstk",
        "--epochs", 0, "--no-time", "--set", "data.input_size=16", "--out", ".", "--name", "comparison", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def try_damage(place: Path, count: int, seed: int = 0) -> Tally:
    """Open so many damaged files, in turn of each format, with the manifest and without.

    Args:
        place: The workplace (`make_place`), with `add_weights`.
        count: The number of damaged files.
        seed: Of the damage.

    Returns:
        What was found.
    """
    chosen, tally = random.Random(seed), Tally()
    right = {name: open_it(place / name) for name, open_it in FORMATS.items()}
    with TemporaryDirectory() as scratch:
        for number in range(count):
            name = list(FORMATS)[number % len(FORMATS)]
            source, copy = place / name, Path(scratch) / str(number) / Path(name).parent.name
            content = damaged(source.read_bytes(), chosen)
            if content == source.read_bytes():
                continue
            copy.mkdir(parents=True)
            for each in (
                source.parent.iterdir() if name.partition("/")[0] in ("compact", "onnx", "passes") else [source]
            ):
                shutil.copy(each, copy / each.name)
            (copy / source.name).write_bytes(content)
            tally.cases += 1
            blind = number // len(FORMATS) % 2 == 1
            _open(FORMATS[name], copy / source.name, right[name], name, tally, blind=blind)
            shutil.rmtree(copy.parent)
    return tally


def _open(open_it: Open, file: Path, right: Any, name: str, tally: Tally, *, blind: bool) -> None:
    """Open one damaged file; `blind` without a look at the manifest."""
    try:
        with patience():
            if blind:
                with unverified():
                    open_it(file)
                return
            if not same(open_it(file), right) and name.startswith(VOUCHED):
                tally.findings.append(Finding("silent difference", name))
            elif name.startswith(VOUCHED):
                tally.findings.append(Finding("change not seen", name))
    except RoutekitError as error:
        tally.refused += 1
        if "\n" in str(error):
            tally.findings.append(Finding("several lines", name, str(error)[:300]))
    except Hang:
        tally.findings.append(Finding("hang", name, f"over {PATIENCE} s"))
    except BaseException as error:
        tally.findings.append(Finding("foreign exception", name, repr(error)[:300]))
