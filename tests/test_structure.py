"""The house's own rules: layers point down, the package list is complete, recipes are valid."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from routekit.recipe import Recipe, load_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
# From the ground up: a module imports only from rows before its own, or from its own package.
LAYERS = [
    ["errors"],
    ["files"],
    ["registry"],
    ["routing.decision", "macs", "data"],
    ["backbones.unit", "routing.certainty", "routing.gate", "routing.router", "routing.stacked"],
    ["routing.policy"],
    ["backbones"],
    [
        "network.branches",
        "network.dial",
        "network.executor",
        "network.exits",
        "network.heads",
        "network.paths",
        "network.remaining",
        "network.trip",
    ],
    ["network.structure"],
    ["network.network"],
    ["network.convert"],
    ["network.cascade"],
    ["cost.model"],
    ["cost.cascade"],
    ["cost.budget"],
    ["cost.price", "cost.toll", "cost.weight"],
    ["objective"],
    ["evaluation", "baselines"],
    ["training"],
    ["execution"],
    ["export"],
    ["runtime"],
    ["bench"],
    ["report"],
    ["recipe"],
    ["pipeline.machine", "pipeline.run_folder", "pipeline.build"],
    ["pipeline.check", "pipeline.inputs", "pipeline.record"],
    ["pipeline.join", "pipeline.analyse"],
    ["pipeline"],
    ["comparison"],
]


def layer(module: str) -> int:
    """The row of a module below `routekit.`: that of its longest listed prefix."""
    found = [
        (len(name), row)
        for row, names in enumerate(LAYERS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    assert found, f"{module} is in no layer"
    return max(found)[1]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("routekit."):
            found.add(node.module.removeprefix("routekit."))
    return found


@pytest.mark.parametrize(
    "path", sorted(p for p in (ROOT / "routekit").rglob("*.py") if p.name != "__init__.py"), ids=lambda p: p.stem
)
def test_no_import_points_up(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT / "routekit").with_suffix("").parts)
    for imported in imports(path):
        same_package = imported.split(".")[0] == module.split(".")[0] and "." in module
        assert layer(imported) < layer(module) or (same_package and layer(imported) <= layer(module)), imported


def test_the_package_list_is_the_tree() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "routekit").rglob("__init__.py")} | {
        "routekit.recipes",
        "routekit_cli",
    }
    assert set(setup["packages"]) == packages
    assert sorted(setup["packages"]) == setup["packages"]


def test_inside_the_cli_imports_are_relative() -> None:
    for path in (ROOT / "cli").glob("*.py"):
        assert "import routekit_cli" not in path.read_text()
        assert "from routekit_cli" not in path.read_text()


def test_every_public_name_is_there() -> None:
    import routekit

    assert len(routekit.__all__) <= 14
    assert all(getattr(routekit, name) is not None for name in routekit.__all__)
    assert sorted(routekit._HOME) == routekit.__all__


def test_importing_routekit_is_cheap() -> None:
    code = "import sys, routekit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_is_valid_says_its_command_and_survives_a_round_trip(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert "#   routekit convert" in text
    recipe = load_recipe(name)
    import yaml

    assert Recipe.model_validate(yaml.safe_load(recipe.to_yaml())) == recipe


def test_a_faulty_recipe_lists_every_fault(tmp_path: Path) -> None:
    from routekit.errors import InputError

    path = tmp_path / "mine.yaml"
    path.write_text("method: routd\ntraining: {epochs: -1, speed: 3}\nroutters: {}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(str(path))
    for fault in ("method", "training.epochs", "training.speed", "routters"):
        assert fault in str(caught.value)


def test_nothing_in_the_repository_names_a_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        if not name.endswith((".png", ".svg")) and name != "tests/test_structure.py":
            text = (ROOT / name).read_text()
            assert "/root/" not in text, name
            assert "/work/" not in text, name
