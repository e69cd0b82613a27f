"""A kill, or a full disk, at every call that changes the disk: what was there is there, or what is new, whole."""

import builtins
import errno
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from unittest.mock import patch

import torch

from routekit import files
from routekit.errors import RoutekitError
from routekit.files import write_text
from routekit.formats.checkpoint import load, save_network
from routekit.formats.onnx.file import save_onnx
from routekit.formats.onnx.piece import Exporter
from routekit.manifest import foreign
from routekit.network.network import RoutedNetwork
from routekit.pipeline.run_folder import RunFolder
from routekit.runtime.load import load_runtime
from tests.hostile.damage import images
from tests.hostile.place import Finding, Tally


class Dead(BaseException):
    """The process is killed: from here on it changes nothing, and cleans nothing up."""


Mode = Literal["count", "kill", "full"]


@dataclass
class Disk:
    """Every call that changes the disk, counted; at call number `at` the disk is full, or the process dies."""

    mode: Mode
    at: int = 0
    calls: int = 0

    def changes(self, *, needs_room: bool) -> None:
        """Count a call, and let it fail if it is time."""
        self.calls += 1
        if self.mode == "kill" and self.calls >= self.at:
            raise Dead
        if self.mode == "full" and self.calls >= self.at and needs_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let all calls of this process go through here meanwhile."""
        with (
            patch.multiple(os, **{name: self._counted(getattr(os, name), name) for name in CALLS}),
            patch.multiple(io, open=self._opened(io.open)),
            patch.multiple(builtins, open=self._opened(builtins.open)),
            patch.multiple(files, _exchange=self._counted(files._exchange, "_exchange")),
        ):
            yield

    def _counted(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            writes = name != "open" or (len(given) > 1 and given[1] & (os.O_WRONLY | os.O_RDWR))
            if writes:
                self.changes(needs_room=name in ("open", "fsync", "mkdir"))
            return call(*given, **named)

        return counted

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
            if set(mode) & set("wax+"):
                self.changes(needs_room=True)
            return call(file, mode, *given, **named)

        return opened


CALLS = ("open", "fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir")


@dataclass(frozen=True)
class Operation:
    """Something that replaces something.

    Attributes:
        name: What it is.
        begin: Makes what is there before, in an empty folder.
        act: Replaces it.
        look: Says what is there, for comparison.
    """

    name: str
    begin: Callable[[Path], object]
    act: Callable[[Path], object]
    look: Callable[[Path], object]


def operations(first: RoutedNetwork, other: RoutedNetwork) -> list[Operation]:
    """What the commands do to the disk, with two networks that answer differently."""
    about, exporter = {"classes": ["a", "b", "c"]}, Exporter()  # which exports each block once

    def save(network: RoutedNetwork) -> Callable[[Path], object]:
        return lambda folder: save_network(folder / "network", network, about=about)

    def export(network: RoutedNetwork) -> Callable[[Path], object]:
        return lambda folder: save_onnx(folder / "onnx", network, about, exporter, forms=["single"])

    def text(words: str) -> Callable[[Path], object]:
        return lambda folder: write_text(folder / "a", words)

    def answers(folder: Path) -> object:
        return load(folder / "network").predict(images()).tolist()

    def exported(folder: Path) -> object:
        return load_runtime(folder / "onnx")(images()).logits.tolist()

    def run(text: str) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            files.make_folder(folder / "run", "run")
            write_text(folder / "run" / "run.yaml", text)
            save_network(folder / "run" / "network", first if text == "old" else other, about=about)
            write_text(folder / "run" / "record.json", text)

        return make

    def finished(folder: Path) -> object:
        """A run that is finished is whole; one that is not can be started over."""
        if not (folder / "run").exists():
            return "nothing"
        assert [*foreign(folder / "run")] == []
        if not RunFolder(folder / "run").finished:
            files.check_folder(folder / "run", "run", force=True)
            return "unfinished"
        load(folder / "run" / "network")
        return (folder / "run" / "record.json").read_text()

    return [
        Operation("a text file", text("old"), text("new"), lambda folder: (folder / "a").read_text()),
        Operation("a checkpoint", save(first), save(other), answers),
        Operation("an ONNX export", export(first), export(other), exported),
        Operation("a run, started over", run("old"), run("new"), finished),
    ]


def try_writes(operation: Operation, *, most: int | None = None, seed: int = 0) -> Tally:
    """Let each call that changes the disk fail once, by a kill and by a full disk; then do the whole anew.

    Args:
        operation: What is done.
        most: How many places are tried for each kind of failure; None for all.
        seed: Of which.

    Returns:
        What was found.
    """
    tally, chosen = Tally(), random.Random(seed)
    with TemporaryDirectory() as scratch:
        start = Path(scratch) / "start"
        start.mkdir()
        operation.begin(start)
        old = operation.look(start)
        copied = _copy(start, Path(scratch) / "count")
        counted = Disk("count")
        with counted.watched():
            operation.act(copied)
        new = operation.look(copied)
        places = [(mode, at) for mode in ("kill", "full") for at in range(1, counted.calls + 1)]
        if most is not None and most < len(places):
            places = chosen.sample(places, most)
        for mode, at in places:
            tally.cases += 1
            folder = _copy(start, Path(scratch) / f"{mode}{at}")
            where = f"{operation.name}: {mode} at call {at} of {counted.calls}"
            _try(operation, Disk(mode, at), folder, [old, new], where, tally)
            shutil.rmtree(folder)
    return tally


def _copy(start: Path, to: Path) -> Path:
    shutil.copytree(start, to)
    return to


def _try(operation: Operation, disk: Disk, folder: Path, good: list[object], where: str, tally: Tally) -> None:
    try:
        with disk.watched():
            operation.act(folder)
    except (Dead, RoutekitError):
        tally.refused += 1
    except BaseException as error:
        tally.findings.append(Finding("foreign exception", where, repr(error)[:300]))
    try:
        found = operation.look(folder)
        if found not in good and found not in ("nothing", "unfinished"):
            tally.findings.append(Finding("neither old nor new", where, str(found)[:100]))
    except BaseException as error:
        tally.findings.append(Finding("file lost", where, repr(error)[:300]))
    try:
        operation.act(folder)
        if operation.look(folder) != good[1]:
            tally.findings.append(Finding("cannot be done again", where, "other result"))
    except BaseException as error:
        tally.findings.append(Finding("cannot be done again", where, repr(error)[:300]))


def two_networks() -> tuple[RoutedNetwork, RoutedNetwork]:
    """Two cascades of one architecture with other weights."""
    from routekit.backbones.load import build, spec_of
    from routekit.junctions.cascade import Cascade
    from routekit.junctions.convert import convert

    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        spec = spec_of("resnet20", num_classes=3, input_size=(3, 16, 16))
        made.append(convert(build(spec), [Cascade(width=0.5)]).eval())
    return made[0], made[1]
