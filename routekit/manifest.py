"""Which files routekit wrote: a manifest in each folder of ours, with the size and the digest of each file.

What a manifest does not name is not ours: it is never replaced, and never removed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import IO, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from routekit.documents import read_document
from routekit.errors import InputError, RoutekitError

MANIFEST = "routekit.json"
# What a file or a folder is called as long as it is written: with a point before, so that nobody takes it for finished.
PARTIAL = ".partial"
WRITING = re.compile(r"\..+\.[a-z0-9_]{8}\.partial", re.DOTALL)
# The folders with a manifest of their own that are parts of a folder. What else lies in one of these is others'.
PARTS = {
    "run": {"dense", "last", "network", "forms", "passes", "tensorboard"},
    "comparison": {"start", "cells"},
    "training": set[str](),
    "tracking": set[str](),
    "network": set[str](),
}
# Whether what is loaded has to be as it was written.
verifying: ContextVar[bool] = ContextVar("verifying", default=True)


def _inside(name: str) -> str:
    """A name in a manifest has to lie in the folder, whoever wrote the manifest."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or {"..", "."} & {*name.split("/")} or "\\" in name or str(path) != name:
        raise ValueError(f"{name!r} is no name of a file in the folder")
    return name


class Entry(BaseModel):
    """A file as it was written: its size in bytes, and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """The files of a folder, without those of folders in it that have a manifest of their own.

    Attributes:
        kind: What the folder holds: "run", "comparison", "network", "ladder", "training".
        files: By their paths in the folder. None for a file that is being written, or grows.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal["routekit folder"] = "routekit folder"
    version: Literal[1] = 1
    kind: str
    files: dict[Annotated[str, AfterValidator(_inside)], Entry | None] = {}

    def write(self, folder: Path) -> None:
        """Write it into its folder."""
        text = self.model_dump_json(indent=1) + "\n"
        replace_file(folder / MANIFEST, lambda stream: stream.write(text.encode()))


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside `path`, flush it to disk, and rename it over `path`: it is there whole, or as before.

    Args:
        path: The file. A link is replaced, and not followed.
        write: Called with the stream to write to.

    Raises:
        RoutekitError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{token_hex(4)}{PARTIAL}")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(temporary, flags, 0o666), "w+b") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise RoutekitError(f"cannot write {path}: {error.strerror}; what was there before is untouched") from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None if it has none. Raises InputError: it is damaged, or of another version."""
    file = folder / MANIFEST
    if not os.path.lexists(file):
        return None
    try:
        return Manifest.model_validate_json(read_document(file))
    except ValidationError as error:
        raise InputError(f"{file} is damaged, or of another version: {error.errors()[0]['msg']}") from error


def begin(folder: Path, kind: str) -> None:
    """Make a folder ours: an empty manifest. Raises RoutekitError: it cannot be written."""
    Manifest(kind=kind).write(folder)


def manifest_over(path: Path) -> tuple[Path, Manifest, str] | None:
    """Find the manifest of a file's folder, or of the folder above.

    Args:
        path: The file, which need not be there.

    Returns:
        That folder, its manifest, and the name of the file in it.

    Raises:
        InputError: The manifest is damaged, or no file of ours can have such a name.
    """
    place = path.parent.resolve()  # without `..`, and where links lead to
    for folder in (place, place.parent):
        if (found := read_manifest(folder)) is not None:
            try:
                return folder, found, _inside((place / path.name).relative_to(folder).as_posix())
            except ValueError as error:
                raise InputError(f"{path} cannot be written: {error}") from error
    return None


def note(path: Path, *, finished: bool = True) -> None:
    """Note a file in the manifest of its folder, if that has one.

    Args:
        path: The file.
        finished: Whether it is as it stays; else it is only ours.
    """
    over = manifest_over(path)
    if over is None:
        return
    folder, manifest, name = over
    entry = entry_of(path) if finished else None
    if name not in manifest.files or manifest.files[name] != entry:
        manifest.files[name] = entry
        manifest.write(folder)


def entry_of(file: Path) -> Entry:
    """The size and the digest of a regular file."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Entry(size=file.stat().st_size, sha256=digest)


def seal(folder: Path, kind: str) -> None:
    """Write the manifest of a finished folder: all files in it, but those of folders with their own manifest."""
    files = {}
    for file in _files(folder):
        sync(file)
        files[file.relative_to(folder).as_posix()] = entry_of(file)
    Manifest(kind=kind, files=files).write(folder)


def _files(folder: Path) -> Iterator[Path]:
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.is_symlink():
            if not (each / MANIFEST).exists():
                yield from _files(each)
        elif each.name != MANIFEST:
            yield each


def ours(folder: Path, pattern: str) -> list[Path]:
    """Find the files of a folder that its manifest names and that match a pattern.

    Args:
        folder: The folder.
        pattern: As "*.onnx".

    Returns:
        The files. Without a manifest none, or all that match where nothing is verified.

    Raises:
        InputError: The manifest is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return [] if verifying.get() else sorted(folder.glob(pattern))
    named = [folder / name for name in manifest.files if Path(name).match(pattern) and "/" not in name]
    return sorted(file for file in named if file.exists())


@contextmanager
def unverified() -> Iterator[None]:
    """Take files as they are meanwhile, for those who know why."""
    before = verifying.set(False)
    try:
        yield
    finally:
        verifying.reset(before)


def verify(file: Path, *, needed: bool = False) -> None:
    """Check that a file is as it was written.

    Args:
        file: The file.
        needed: Whether a manifest has to name it.

    Raises:
        InputError: It is not, or nothing says how it was written though that is needed.
    """
    if file.exists() and not file.is_file():  # opening a pipe would wait for somebody to write to it
        raise InputError(f"{file} is no regular file")
    if not verifying.get():
        return
    way_out = "restore it, make it again, or take what is there with verify=False"
    manifest = read_manifest(file.parent)
    entry = None if manifest is None else manifest.files.get(file.name)
    if not file.exists():
        if entry is not None:
            raise InputError(f"{file} is missing: {way_out}")
    elif entry is None:
        if needed:
            raise InputError(f"nothing says how {file} was written ({MANIFEST} beside it does not): {way_out}")
    elif entry.size != file.stat().st_size or entry != entry_of(file):
        raise InputError(f"{file} is not as routekit wrote it: {way_out}")


def foreign(folder: Path) -> Iterator[Path]:
    """Find what is not ours in a folder: neither its manifest nor those of its parts name it."""
    manifest = read_manifest(folder)
    if manifest is None:
        yield from _unnamed(folder, folder, set(), None)
    else:
        yield from _unnamed(folder, folder, {*manifest.files, MANIFEST}, PARTS.get(manifest.kind))


def _unnamed(here: Path, top: Path, names: set[str], parts: set[str] | None) -> Iterator[Path]:
    for each in sorted(here.iterdir()):
        name = each.relative_to(top).as_posix()
        if WRITING.fullmatch(each.name) and _begun(each, names):  # of a process that was killed
            continue
        if each.is_dir() and not each.is_symlink():
            if not (each / MANIFEST).exists():
                yield from _unnamed(each, top, names, parts)
            elif parts is not None and name.partition("/")[0] not in parts:
                yield each
            else:
                yield from foreign(each)
        elif name not in names:
            yield each


def _begun(path: Path, names: set[str]) -> bool:
    """Whether what is called as if it were being written is a file of ours, or a folder as we make them."""
    if path.is_dir():
        return {each.name for each in path.iterdir()} <= {"made", "former"} or path.name.startswith(".making.")
    stem = path.name[1:].rpartition(".partial")[0].rpartition(".")[0]
    return stem in {MANIFEST, *(PurePosixPath(name).name[:100] for name in names)}


def check_ours(folder: Path) -> None:
    """Raise InputError if other files than ours lie in a folder, or a folder that is no part of it."""
    if others := [*foreign(folder)]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        first = f"{others[0].relative_to(folder)}{more}"
        stranger = (others[0] / MANIFEST).exists()
        found = f"{first}, no part of it" if stranger else f"files that routekit did not write ({first})"
        raise InputError(f"{folder} holds {found}: move what is not its own, or choose another folder")
