"""What is known without a run: help, costs, models."""

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.command import ENVIRONMENT, in_process, routekit


def test_help_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['routekit', 'convert', '--help']\n"
        "try:\n  from routekit_cli.main import run; run()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "--target-flops" in done.stdout


def test_flops_and_models_as_json(tmp_path: Path) -> None:
    table = json.loads(routekit("flops", "resnet56", "--json", cwd=tmp_path).stdout)
    assert table["total"] == sum(part["flops"] for part in table["parts"])
    assert {"name", "kind", "flops", "skippable"} == set(table["parts"][0])
    assert "1 multiply-add = 1 FLOP" in table["convention"]
    assert sum(part["skippable"] for part in table["parts"]) == 27
    models = json.loads(in_process("models", "--json", cwd=tmp_path).stdout)["models"]
    assert {"cifar", "timm", "torchvision"} == {entry["source"] for entry in models}
