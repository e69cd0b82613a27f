"""Files and folders that are never half written, and that replace nothing but what routekit wrote."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from routekit.errors import InputError, RoutekitError
from routekit.manifest import (
    MANIFEST,
    PARTIAL,
    WRITING,
    begin,
    check_ours,
    entry_of,
    manifest_over,
    note,
    read_manifest,
    replace_file,
    seal,
    sync,
)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, and note it in the manifest of its folder.

    Args:
        path: The file.
        write: Called with the stream to write to.

    Raises:
        RoutekitError: It cannot be written. A file that was there before is untouched.
    """
    note(path, finished=False)
    replace_file(path, write)
    note(path)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, in UTF-8 (`write_atomically`).

    Args:
        path: The file.
        text: Its text.

    Raises:
        RoutekitError: It cannot be written. A file that was there before is untouched.
    """
    write_atomically(path, lambda stream: stream.write(text.encode(errors="backslashreplace")))


def check_file(path: Path, *, force: bool) -> None:
    """Check that a file can be written.

    Args:
        path: The file.
        force: Whether it may replace one that routekit did not write.

    Raises:
        InputError: It may not, it is no regular file, or there is no such folder.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: choose the name of a file")
    if not path.is_symlink() and not path.is_file():
        raise InputError(f"{path} is no regular file: choose another name")
    over = manifest_over(path)
    entry = None if over is None else over[1].files.get(over[2])
    if not force and (entry is None or entry != entry_of(path)):  # also where somebody changed what was ours
        raise InputError(f"{path} exists: choose another name, or replace it with force=True")


@contextmanager
def whole_folder(path: Path, kind: str) -> Iterator[Path]:
    """Make a folder that is there whole or not at all. It is filled beside its place, and takes that of an older one.

    Args:
        path: The folder.
        kind: What it holds, for its manifest.

    Yields:
        The folder to fill. If that fails, an older folder stays.

    Raises:
        InputError: Something else than an older folder of ours is there.
        RoutekitError: It cannot be written.
    """
    path = path.absolute()
    existing(path.parent)
    with (
        cannot_write(path),
        TemporaryDirectory(prefix=f".{path.name[:100]}.", suffix=PARTIAL, dir=path.parent) as place,
    ):
        made = Path(place) / "made"
        made.mkdir()
        yield made
        seal(made, kind)
        install(made, path)


def install(made: Path, path: Path) -> None:
    """Let a finished folder, which lies on the same disk, take its place in one step; what was there takes its own.

    Args:
        made: The folder.
        path: Its place.

    Raises:
        InputError: Something else than a folder of ours is there.
    """
    if not os.path.lexists(path):
        made.rename(path)
    elif path.is_symlink() or not path.is_dir():
        raise InputError(f"{path} is no folder, or a link: choose another folder")
    else:
        check_ours(path)
        _exchange(made, path)
    sync(path.parent)


def _exchange(made: Path, path: Path) -> None:
    """Exchange two folders: in one step where the system can."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2  # AT_FDCWD, RENAME_EXCHANGE
        if call(-100, os.fsencode(made), -100, os.fsencode(path), 2) == 0:
            return
    except (OSError, AttributeError):
        pass
    former = made.with_name("former")
    path.rename(former)
    made.rename(path)


@contextmanager
def cannot_write(path: Path) -> Iterator[None]:
    """Turn the errors of the system into ours: a full disk, a folder without permission."""
    try:
        yield
    except OSError as error:
        said = f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        raise RoutekitError(said) from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder in `folder` for as long as something is made, which is known as ours if its process is killed."""
    with TemporaryDirectory(prefix=".making.", suffix=PARTIAL, dir=folder) as place:
        yield Path(place)


@contextmanager
def alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only process at work on a folder; wait for another one that is.

    The lock of a process ends with it. Where the system or the file system has no locks, nobody waits.

    Args:
        folder: The folder.
        say: Called with a sentence before waiting.

    Yields:
        Once no other process is at work.
    """
    with ExitStack() as held:
        if not _lock(folder, held, wait=False):
            say(f"waiting for another process that is at work on {folder}")
            _lock(folder, held, wait=True)
        yield


def busy(folder: Path) -> bool:
    """Whether a process is at work on a folder, or on a folder in it, where there are locks (`alone`)."""
    for each in (folder, *(found for found in folder.rglob("*") if found.is_dir())):
        with ExitStack() as held:
            if not _lock(each, held, wait=False):
                return True
    return False


def _lock(folder: Path, held: ExitStack, *, wait: bool) -> bool:
    """Lock a folder until `held` closes; False if another process has locked it, and this one does not wait."""
    with suppress(ImportError, OSError):
        import fcntl

        opened = os.open(folder, os.O_RDONLY)
        held.callback(os.close, opened)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def check_apart(path: Path, needs: Sequence[Path]) -> None:
    """Check that a new folder replaces nothing that is needed to make it, and does not lie among its images.

    Args:
        path: The new folder.
        needs: Files and folders that are needed.

    Raises:
        InputError: One of them is in the folder, or the folder would be one of images.
    """
    place = path.resolve()
    for needed in (each for each in needs if each.exists()):
        if place in (needed.resolve(), *needed.resolve().parents):
            raise InputError(f"{path} would be made of {needed}, which is in it: choose another folder")
        if {needed.resolve() / split for split in ("train", "val", "test")} & {place, *place.parents}:
            raise InputError(f"{path} would lie among the images of {needed}: choose another folder")


def check_folder(path: Path, kind: str, *, force: bool, needs: Sequence[Path] = ()) -> None:
    """Check that a new folder can be made.

    Args:
        path: The folder.
        kind: What it will hold: "run", "comparison", "export", "network".
        force: Whether an old one of this kind is replaced.
        needs: Files and folders that the new one needs.

    Raises:
        InputError: There is an old one (without `force`), or one with needed files, or one that a process works on;
            there are other files; or the folder cannot be made.
    """
    check_apart(path, needs)
    if path.is_symlink():
        raise InputError(f"{path} is a link: choose another folder, or the one that it leads to")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: choose another folder")
    if path.exists():
        _check_old(path, kind, force=force)
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write to {path}: {there} is no folder that can be written to")


def _check_old(path: Path, kind: str, *, force: bool) -> None:
    """Raise InputError if a folder that is there cannot be replaced."""
    manifest = read_manifest(path)
    if manifest is None:
        if any(not WRITING.fullmatch(each.name) for each in path.iterdir()):
            raise InputError(f"{path} holds other files, and no {MANIFEST} of routekit: choose another folder")
        return
    if [each.name for each in path.iterdir()] == [MANIFEST]:  # it was only just begun
        return
    if manifest.kind != kind:
        raise InputError(f"{path} holds a routekit {manifest.kind}, not a {kind}: choose another folder")
    if not force:
        resumed = kind in ("run", "comparison")
        on = f"go on with resume={path}, or start over" if resumed else "choose another folder, or replace it"
        raise InputError(f"{path} holds a {kind}: {on} with force=True")
    if busy(path):
        raise InputError(f"another process is at work on {path}: wait for it or stop it, or choose another folder")
    check_ours(path)


def make_folder(path: Path, kind: str) -> None:
    """Make a folder of ours. An old one is put aside in one step, and removed then.

    Args:
        path: The folder.
        kind: What it will hold.

    Raises:
        InputError: It cannot be made, or others' files are in it.
    """
    try:
        if (path / MANIFEST).exists():
            check_ours(path)
            with TemporaryDirectory(prefix=".former.", suffix=PARTIAL, dir=path.absolute().parent) as aside:
                path.absolute().rename(Path(aside) / "former")
        path.mkdir(parents=True, exist_ok=True)
        begin(path, kind)
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from error


def own_folder(path: Path, kind: str) -> Path:
    """The folder, which is made ours if it is not there, or empty. Raises InputError: it holds something else."""
    manifest = read_manifest(path)
    if manifest is None or manifest.kind != kind:
        check_folder(path, kind, force=False)
        make_folder(path, kind)
    return path


def existing(folder: Path) -> Path:
    """The folder, which is made if it is not there. Raises InputError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from error
    return folder
