"""The errors a user can meet: each is one clear line that names the way out."""


class RoutekitError(Exception):
    """A failure at run time; the command line exits with `exit_code` and prints the message, no traceback."""

    exit_code = 1


class InputError(RoutekitError):
    """Something the user gave is wrong: a name, a file, a number. Exit code 2."""

    exit_code = 2


class TrainingError(RoutekitError):
    """Training could not go on (a loss that is not finite); the last good state is kept on disk."""


class ExportError(RoutekitError):
    """A network, or a part of it, that a format cannot hold; or an exported file that does not do what it should."""


def first_line(error: BaseException) -> str:
    """What an exception of another library says, in one line; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason(error: BaseException) -> str:
    """Why something failed, in one line: what a user can do about it, or whose exception it was and what it says."""
    return str(error) if isinstance(error, RoutekitError) else f"{type(error).__name__}: {first_line(error)}"
