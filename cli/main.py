"""The `routekit` command: all subcommands, and the one map from errors to messages and exit codes."""

import os
import sys
import traceback

import typer

from . import aim, bench, cascade, compare, convert, evaluate, export, finetune, flops, models, predict, report
from .options import words
from .recipes import recipes

INTERRUPTED = 130  # what a shell reports for Ctrl-C

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
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del debug, version  # `run` takes --debug out of the arguments, so that it may stand anywhere


for _module in (convert, aim, finetune, cascade, compare, evaluate, flops, export, predict, bench, report, models):
    _, _, _name = _module.__name__.rpartition(".")
    app.command(epilog=getattr(_module, "EPILOG", None))(getattr(_module, _name))
app.add_typer(recipes, name="recipes")


def run() -> None:
    """Run the command line. It exits with 0, 1 (a failure at run time), 2 (bad input) or 130 (interrupted)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if arguments[:1] == ["predict"]:  # where all sessions of onnxruntime are ours
        os.environ.setdefault("ROUTEKIT_SHARED_THREADS", "1")
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
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        if message := _message(error):  # without a command, the help says it all
            fail(message)
        return getattr(error, "exit_code", 1)
    if code == INTERRUPTED:
        fail("interrupted")
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    """One line for any error. Errors of other libraries get their type, and the advice to use --debug."""
    if hasattr(error, "format_message"):
        return str(error.format_message())
    if hasattr(error, "exit_code"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    first, *_ = [*str(error).splitlines(), ""]
    return f"{type(error).__name__}: {first} (--debug shows where)"


if __name__ == "__main__":
    run()
