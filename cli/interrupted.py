"""How the process was asked to end, by Ctrl-C or by SIGTERM."""

from threading import Event

INTERRUPTED, TERMINATED = 130, 143  # what a shell reports for Ctrl-C and for `kill`
# Whether the process was asked to end by SIGTERM. It ends as for Ctrl-C, but for its exit code.
terminated = Event()


def code() -> int:
    """The exit code of a process that was interrupted."""
    return TERMINATED if terminated.is_set() else INTERRUPTED


def said() -> str:
    """How a process was interrupted, in words."""
    return "ended by a signal" if terminated.is_set() else "interrupted"
