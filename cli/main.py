"""The `routekit` command: the app, and the one map from errors to messages and exit codes."""

import importlib
import os
import sys
import traceback

import typer

INTERRUPTED = 130  # what a shell reports for Ctrl-C

app = typer.Typer(
    name="routekit",
    help="Convert a pretrained ResNet into a dynamically routed one, at the average cost you ask for.",
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
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error (anywhere on the line)."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Say which version this is."
    ),
) -> None:
    del debug, version  # the first is taken out of the arguments by `run`, so that it may stand anywhere


for _command in (
    "convert",
    "finetune",
    "cascade",
    "compare",
    "evaluate",
    "flops",
    "export",
    "predict",
    "bench",
    "report",
    "recipes",
    "models",
):
    importlib.import_module(f"{__package__}.{_command}").register(app)


def run() -> None:
    """Run the command line; exit with 0, 1 (a failure at run time), 2 (bad input) or 130 (interrupted)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    sys.exit(call(arguments, debug=debug))


def call(arguments: list[str], *, debug: bool = False) -> int:
    """Run one command line and return its exit code."""
    from .output import fail

    try:
        code = typer.main.get_command(app).main(arguments, prog_name="routekit", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as stop:
        code = stop.exit_code
    except BrokenPipeError:
        # The reader of stdout has gone; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        fail(_message(error))
        return getattr(error, "exit_code", 1)
    if code == INTERRUPTED:
        fail("interrupted")
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    """One line for any error: ours and Typer's speak for themselves, others are named and --debug is offered."""
    if hasattr(error, "format_message"):
        return str(error.format_message())
    if hasattr(error, "exit_code"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (--debug shows where)"


if __name__ == "__main__":
    run()
