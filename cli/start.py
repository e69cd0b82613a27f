"""The first lines of the command: whatever is imported afterwards, an interruption is one line and an exit code."""

import os
import signal
import sys
from typing import Any

INTERRUPTED, TERMINATED = 130, 143  # what a shell reports for Ctrl-C and for `kill`


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""


def run() -> None:
    """Run the command line (`routekit_cli.main.run`)."""

    def terminated(*_: Any) -> None:
        raise Terminated

    if sys.stdout is None or sys.stderr is None:  # closed by whoever started the process
        nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    try:
        signal.signal(signal.SIGTERM, terminated)
        from .main import run as begin

        begin()
    except KeyboardInterrupt as error:  # while the modules are imported
        leave(error)


def leave(error: BaseException) -> None:
    """Say that the process was interrupted, and exit."""
    ended = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
    sys.stderr.write("error: ended by a signal\n" if ended else "error: interrupted\n")
    sys.stderr.flush()
    os._exit(TERMINATED if ended else INTERRUPTED)


if __name__ == "__main__":  # by the module's own name, so that there is one `Terminated`
    from routekit_cli.start import run as begin

    begin()
