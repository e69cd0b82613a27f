"""Files that are never half written, and folders that are not replaced while something in them is needed."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from routekit.errors import InputError, RoutekitError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a neighbour file, flush it to disk, then rename it over `path`.

    Args:
        path: The file.
        write: Called with the stream to write to.

    Raises:
        RoutekitError: It cannot be written. A file that was there before is untouched.
    """
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RoutekitError(f"cannot write {path}: {error.strerror}; what was there before is untouched") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole text file (`write_atomically`).

    Args:
        path: The file.
        text: Its text.

    Raises:
        RoutekitError: It cannot be written. A file that was there before is untouched.
    """
    write_atomically(path, lambda stream: stream.write(text.encode()))


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
    """Check that a new folder replaces nothing that is needed to make it.

    Args:
        path: The new folder.
        needs: Files and folders that are needed.

    Raises:
        InputError: One of them is in the folder.
    """
    for needed in needs:
        if needed.exists() and path.resolve() in (needed.resolve(), *needed.resolve().parents):
            raise InputError(f"{path} would be made of {needed}, which is in it: choose another folder")


def check_folder(path: Path, kind: str, marker: str, *, force: bool, needs: Sequence[Path] = ()) -> None:
    """Check that a new folder can be made.

    Args:
        path: The folder.
        kind: What it will hold: "run" or "comparison".
        marker: The file that every folder of this kind has.
        force: Whether an old one is replaced.
        needs: Files and folders that the new one needs.

    Raises:
        InputError: There is an old one (without `force`), or one with needed files, or one that a process works on;
            there are other files; or the folder cannot be made.
    """
    check_apart(path, needs)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: choose another folder")
    if (path / marker).exists() and not force:
        raise InputError(f"{path} holds a {kind}: go on with resume={path}, or start over with force=True")
    if (path / marker).exists() and busy(path):
        raise InputError(f"another process is at work on {path}: wait for it or stop it, or choose another folder")
    if path.exists() and not (path / marker).exists() and any(path.iterdir()):
        raise InputError(f"{path} holds other files: choose another folder")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write to {path}: {there} is no folder that can be written to")


def make_folder(path: Path, marker: str) -> None:
    """Make a folder; one that is there already is replaced.

    Args:
        path: The folder.
        marker: The file that a folder to be replaced has.

    Raises:
        InputError: It cannot be made.
    """
    try:
        if (path / marker).exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from error


def existing(folder: Path) -> Path:
    """The folder, which is made if it is not there. Raises InputError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}") from error
    return folder
