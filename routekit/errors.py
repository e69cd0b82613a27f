"""The errors that a user can meet: each is one clear line, which names a solution."""


class RoutekitError(Exception):
    """A failure at run time. The command line prints the message without a traceback, and exits with `exit_code`."""

    exit_code = 1


class InputError(RoutekitError):
    """Some input is wrong: a name, a file, a number. Exit code 2."""

    exit_code = 2


class TrainingError(RoutekitError):
    """Training cannot continue, for example because a loss is not finite. The last good state is on disk."""


class ExportError(RoutekitError):
    """A format cannot hold a network, or an exported file gives other answers than the network."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the name of its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason(error: BaseException) -> str:
    """Why something failed, in one line: the message of our own error, else the type and the message of another."""
    return str(error) if isinstance(error, RoutekitError) else f"{type(error).__name__}: {first_line(error)}"
