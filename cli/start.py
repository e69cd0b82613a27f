"""The first lines of the command: whatever is imported afterwards, an interruption is one line and an exit code."""

import os
import signal
import sys
from io import TextIOWrapper
from typing import Any

from .interrupted import code, said, terminated


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


if __name__ == "__main__":
    run()
