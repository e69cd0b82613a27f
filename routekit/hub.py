"""The Hugging Face Hub: what is there as a folder here (`local`), and a folder from here put there (`upload`).

There is no `ModelHubMixin`: networks would inherit from it, and it builds them again from a constructor's arguments,
where a checkpoint of ours holds a blueprint.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from routekit.errors import InputError, RoutekitError, reason
from routekit.manifest import MANIFEST

SCHEME = "hf://"
NETWORK = "network.json"
# What a repository of ours is made of. Nothing else is fetched or sent: no program, no code, nothing pickled.
FILES = [MANIFEST, NETWORK, "network.safetensors", "record.json", "README.md"]
# A part of a name on the Hub.
PART = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def check_name(name: str) -> None:
    """Raise InputError if there can be no repository `name` on the Hub."""
    parts = name.split("/")
    if len(parts) != 2 or not all(map(PART.fullmatch, parts)) or name.endswith(".git"):
        raise InputError(f"{name!r} is no name on the Hub: write user/name, in letters, digits, -, _ and .")


def local(word: str) -> Path:
    """Find the folder of what `hf://user/name` or `hf://user/name@revision` names. What is not here yet is fetched.

    It lies in the cache of `huggingface_hub`. Whether its files are as they were written is checked when they are read.

    Args:
        word: What is meant. The revision is a branch, a tag or a commit.

    Returns:
        The folder.

    Raises:
        InputError: It is no such word, or the Hub has no such repository, or another one.
        RoutekitError: It can neither be fetched, nor is it here.
    """
    name, at, revision = word.removeprefix(SCHEME).partition("@")
    check_name(name)
    if at and not revision:
        raise InputError(f"{word!r} ends where its revision should be: write {SCHEME}{name}@main, or leave out the @")
    from huggingface_hub import snapshot_download

    with _plainly(word):
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=FILES))
    if not (folder / NETWORK).exists():
        raise InputError(f"{word} holds no routed network ({NETWORK} is missing)")
    return folder


def upload(folder: Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Put a checkpoint on the Hub. What was there before stays in the history of its repository.

    Args:
        folder: The checkpoint, with its card and its record.
        name: The repository, as "user/name". It is made if it is not there.
        private: Whether it must be seen by its owner alone.
        revision: The branch, which is made if it is not there; None for the main one.

    Returns:
        The address of the repository.

    Raises:
        InputError: There can be no such name, the repository is public and must not be, or is none of ours.
        RoutekitError: The Hub refuses it, or cannot be reached.
    """
    check_name(name)
    from huggingface_hub import HfApi

    with _plainly(name):
        hub = HfApi(library_name="routekit", library_version=version("routekit"))
        address = str(hub.create_repo(name, private=private or None, exist_ok=True))
        # To ask for a private one does not make one private that is there.
        if private and not hub.model_info(name).private:
            raise InputError(f"{name} is there, and public: make it private on its page first, or choose another name")
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        there = {*hub.list_repo_files(name, revision=revision)}
        if MANIFEST not in there and (others := there.intersection(FILES)):
            raise InputError(
                f"{name} holds files that routekit did not write ({min(others)}): choose another name, or remove them"
            )
        said = f"Written by routekit {version('routekit')}"
        hub.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=FILES, revision=revision, commit_message=said
        )
    return address


@contextmanager
def _plainly(word: str) -> Iterator[None]:
    """Turn the errors of the Hub into ours, in one line."""
    from huggingface_hub import errors

    try:
        yield
    except RoutekitError:
        raise
    except errors.GatedRepoError as error:
        raise RoutekitError(f"{word} is for those whom its owner lets in: ask on its page, and {LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{word} is not on the Hub, or is private: check its name, or {LOG_IN}") from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{word} has no such revision on the Hub: check its name") from error
    except Exception as error:  # those of a broken line are of the HTTP client, which differs with huggingface_hub
        raise RoutekitError(_why(word, error)) from error


def _why(word: str, error: BaseException | None) -> str:
    """Why the Hub failed: by the status of its answer, if there was one."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__
    status = next((found for each in causes if (found := _status(each)) is not None), None)
    if status == 401:
        return f"{word}: the Hub does not know who you are (401): {LOG_IN}"
    if status == 403:
        return f"{word}: the Hub does not allow it (403): use a token that may write there, or choose another name"
    if status is not None:
        return f"{word}: the Hub answered {status}: {reason(causes[0])}"
    return f"{word}: the Hub cannot be reached: {reason(causes[-1])}"


def _status(error: BaseException) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None
