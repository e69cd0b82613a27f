"""The first lines of the command: whatever is imported afterwards, an interruption is one line and an exit code."""

import importlib
import os
import signal
import sys
from io import TextIOWrapper
from threading import Event
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # what a shell reports for Ctrl-C and for `kill`
# Whether the process was asked to end by SIGTERM. It ends as for Ctrl-C, but for its exit code.
terminated = Event()


def run() -> None:
    """Run the command line (`routekit_cli.main.run`)."""

    def terminate(*_: Any) -> None:
        terminated.set()
        raise KeyboardInterrupt

    if sys.stdout is None or sys.stderr is None:  # closed by whoever started the process
        nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no ✓ gets its number
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        signal.signal(signal.SIGTERM, terminate)
        from .main import run as begin

        begin()
    except KeyboardInterrupt:  # while modules are imported
        sys.stderr.write(f"error: {said()}\n")
        sys.stderr.flush()
        os._exit(code())


def code() -> int:
    """The exit code of a process that was interrupted."""
    return TERMINATED if terminated.is_set() else INTERRUPTED


def said() -> str:
    """How a process was interrupted, in words."""
    return "ended by a signal" if terminated.is_set() else "interrupted"


if __name__ == "__main__":  # by the module's own name, so that there is one `terminated`
    importlib.import_module("routekit_cli.start").run()
