"""The `routekit` command: all subcommands, and the one map from errors to messages and exit codes."""

import errno
import os
import sys
import traceback
from typing import Any

import typer

from . import (
    aim,
    auto,
    bench,
    benchmark,
    card,
    cascade,
    compare,
    convert,
    evaluate,
    export,
    finetune,
    flops,
    interrupted,
    models,
    predict,
    push,
    report,
)
from .options import words
from .recipes import recipes

app = typer.Typer(
    name="routekit",
    help="Convert a pretrained ResNet into a dynamically routed one, at the mean cost that you ask for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"routekit {version('routekit')}")
        raise typer.Exit


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Print the traceback of an error. It may stand anywhere."),
    no_verify: bool = typer.Option(
        False, "--no-verify", help="Take files as they are, also those that are not as routekit wrote them."
    ),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del debug, no_verify, version  # `run` takes these out of the arguments, so that they may stand anywhere


for _module in (
    auto,
    convert,
    aim,
    finetune,
    cascade,
    compare,
    evaluate,
    flops,
    export,
    predict,
    bench,
    benchmark,
    report,
    card,
    push,
    models,
):
    _, _, _name = _module.__name__.rpartition(".")
    app.command(epilog=getattr(_module, "EPILOG", None))(getattr(_module, _name))
app.add_typer(recipes, name="recipes")


def run() -> None:
    """Run the command line. It exits with 0, 1 (a failure at run time), 2 (bad input), 130 (interrupted) or 143."""
    debug, trusting = (each in sys.argv[1:] for each in ("--debug", "--no-verify"))
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--debug", "--no-verify")]
    if trusting:
        from routekit.manifest import verifying

        verifying.set(False)
    if arguments[:1] == ["predict"]:  # where all sessions of onnxruntime are ours
        os.environ.setdefault("ROUTEKIT_SHARED_THREADS", "1")
    if not sys.stderr.isatty():  # huggingface_hub draws its bars there, too
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(call(arguments, debug=debug))


def call(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line.

    Args:
        arguments: The words of the command line, without `routekit`.
        debug: Whether the traceback of an error is printed.

    Returns:
        The exit code.
    """
    from .output import fail

    words.set(arguments)
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="routekit", standalone_mode=False)
        sys.stdout.flush()  # else what cannot be written is found out at exit, behind our back
    except (KeyboardInterrupt, typer.Abort):
        code = interrupted.INTERRUPTED
    except Exception as error:
        if not _drained():
            return 1
        if debug:
            traceback.print_exc()
        if message := _message(error):  # without a command, the help says it all
            fail(message)
        return _exit_code(error)
    if code == interrupted.INTERRUPTED:  # typer makes this of any interruption
        fail(interrupted.said())
        return interrupted.code()
    return code if isinstance(code, int) else 0


def _drained() -> bool:
    """Whether stdout takes what was printed. If its reader has gone, keep Python from complaining about it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


# A path that the user gave is not there, not allowed, a folder, too long, a loop of links, or is in use.
OF_PATHS = {"ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "EEXIST", "EROFS", "EINVAL"}


def _exit_code(error: Exception) -> int:
    """2 for bad input, 1 for a failure."""
    if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in OF_PATHS:
        return 2
    if _zero_byte(error):
        return 2
    return int(getattr(error, "exit_code", 1))


def _zero_byte(error: Exception) -> bool:
    return isinstance(error, ValueError) and "null byte" in str(error)


def _as_setting(error: Exception) -> str:
    """How an unknown option is given, if a setting of the recipe is called so and the command takes settings."""
    name = getattr(error, "option_name", "").lstrip("-").replace("-", "_")
    context: Any = getattr(error, "ctx", None)
    if not name or context is None or not any("--set" in each.opts for each in context.command.params):
        return ""
    from routekit.recipe import load_recipe

    from .output import FLAGS

    sections = load_recipe("default").model_dump()
    found = next((part for part in ("data", "training", "objective") if name in sections[part]), None)
    setting = f"{found}.{name}"  # `fail` translates those that have an option
    return "" if found is None else f"; it is a setting: {'' if setting in FLAGS else '--set '}{setting}=..."


def _message(error: Exception) -> str:
    """One line for any error. Errors of other libraries get their type, and the advice to use --debug."""
    if hasattr(error, "format_message"):
        return f"{error.format_message()}{_as_setting(error)}"
    if hasattr(error, "exit_code"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if _zero_byte(error):
        return "a path holds a zero byte"
    first, *_ = [*str(error).splitlines(), ""]
    return f"{type(error).__name__}: {first} (--debug shows where)"


if __name__ == "__main__":
    run()
