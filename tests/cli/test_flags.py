"""The library names settings; on the command line they are options."""

import re
from pathlib import Path

import pytest
import typer
from routekit_cli.main import app
from routekit_cli.output import FLAGS, WORDS, in_flags, result


@pytest.mark.parametrize(
    ("sentence", "printed"),
    [
        (
            "lower training.learning_rate, and start over with force=True",
            "lower --learning-rate, and start over with --force",
        ),
        ("add junctions=exit", "add --junctions exit"),
        ("junctions go together", "junctions go together"),
        ("give data.val=DIR or data.val_from_test=40%", "give --val DIR or --val-from-test 40%"),
        ("add data.input_size=32", "add --set data.input_size=32"),
        ("for fewer exits (`junctions.exit.at`)", "for fewer exits (`--exits`)"),
        (
            "recipe mine.yaml: training.epochs: less than 0 (line 3)",
            "recipe mine.yaml: training.epochs: less than 0 (line 3)",
        ),
        ("a larger `training.router_learning_rate`", "a larger `training.router_learning_rate`"),
    ],
)
def test_settings_become_options(sentence: str, printed: str) -> None:
    assert in_flags(sentence) == printed


def test_every_option_exists() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {option for command in commands.values() for each in command.params for option in each.opts}
    assert {flag.split()[0] for flag in (*FLAGS.values(), *WORDS.values())} <= options


ROOT = Path(__file__).parent.parent.parent / "routekit"
# They build command lines, or belong to a command that has no counterpart in Python.
OF_COMMANDS = (
    *("comparison", "pipeline/bench.py", "pipeline/measure.py"),
    *("report/bench.py", "report/card", "report/comparison_page.py"),
)


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_library_names_no_options(file: Path) -> None:
    if str(file.relative_to(ROOT)).startswith(OF_COMMANDS):
        return
    text = re.sub(r"`routekit [^`]*`", "", file.read_text())  # a whole command may be named
    assert not re.findall(r"(?<![-\\w])--[a-z][a-z-]+", text)


def test_what_is_printed_is_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    result({}, "smaller :key: [bold]than[/bold] :x:", as_json=False)
    assert capsys.readouterr().out == "smaller :key: [bold]than[/bold] :x:\n"
