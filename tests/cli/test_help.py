"""What is known without a run: help, version, completion, costs, models."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.cli.command import COMMAND, ENVIRONMENT, in_process, routekit

PANELS = ["Budget", "What is made", "Data", "Method", "Training", "Output"]


def test_help_has_panels_and_examples_and_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['routekit', 'convert', '--help']\n"
        "try:\n  from routekit_cli.main import run; run()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    *text, imported = done.stdout.splitlines()
    assert imported == "False", done.stderr
    found = [line.split("─")[1].strip() for line in text if line.startswith("╭─")]
    assert [panel for panel in found if panel in PANELS] == PANELS
    at = {panel: next(place for place, line in enumerate(text) if line.startswith(f"╭─ {panel} ─")) for panel in found}
    for option, panel in {
        "--target-flops": "Budget",
        "--junctions": "What is made",
        "--data": "Data",
        "--policy": "Method",
        "--epochs": "Training",
        "--dry-run": "Output",
    }.items():
        line = next(place for place, line in enumerate(text) if line.startswith(f"│ {option} "))
        assert max((place, name) for name, place in at.items() if place < line)[1] == panel
    # Every kind of junction says for itself what it decides.
    whole = " ".join(" ".join(line.strip("│ ").split()) for line in text)
    for kind in ("skip: which units run", "exit: where to stop", "tree: which path of a tree an image takes"):
        assert kind in whole
    examples = [line.strip() for line in text[max(at.values()) :]]
    assert sum(line.startswith("routekit convert ") for line in examples[examples.index("Examples:") :]) >= 3


def test_every_command_has_help(tmp_path: Path) -> None:
    listed = in_process("--help", cwd=tmp_path)
    commands = ["convert", "finetune", "cascade", "compare", "evaluate", "flops", "export", "predict", "bench"]
    for command in [*commands, "benchmark", "report", "models", "recipes"]:
        assert f"│ {command} " in listed.stdout
        done = in_process(command, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"routekit {command}" in done.stdout


def test_the_version_is_said(tmp_path: Path) -> None:
    done = in_process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"routekit {version('routekit')}\n", "")


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": f"routekit {line}", "COMP_CWORD": str(len(line.split()))}
        environment = ENVIRONMENT | {"_ROUTEKIT_COMPLETE": "complete_bash"} | words
        done = subprocess.run(COMMAND, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert completed("con") == ["convert"]
    assert completed("convert --target-f") == ["--target-flops"]
    script = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} --show-completion; true"],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    assert "_ROUTEKIT_COMPLETE=complete_bash" in script.stdout, script.stderr


def test_flops_and_models_as_json(tmp_path: Path) -> None:
    table = json.loads(routekit("flops", "resnet56", "--json", cwd=tmp_path).stdout)
    assert table["total"] == sum(part["flops"] for part in table["parts"])
    assert {"name", "kind", "flops", "skippable"} == set(table["parts"][0])
    assert "1 multiply-add = 1 FLOP" in table["convention"]
    assert sum(part["skippable"] for part in table["parts"]) == 27
    models = json.loads(in_process("models", "--json", cwd=tmp_path).stdout)["models"]
    assert {"cifar", "timm", "torchvision"} == {entry["source"] for entry in models}
