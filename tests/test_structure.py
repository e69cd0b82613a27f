"""The house's own rules: layers point down, the package list is complete, recipes are valid."""

import ast
import importlib
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
    ["documents"],
    ["manifest"],
    ["files", "hub", "junctions.words"],
    ["registry"],
    ["routing.decision", "macs", "data"],
    ["backbones.unit", "routing.certainty", "routing.gate", "routing.router", "routing.stacked"],
    ["routing.policy", "routing.policy_network"],
    ["routing.reinforce"],
    ["backbones"],
    ["network.heads", "network.pricing"],
    ["network.deciders", "network.forms", "network.execution"],
    ["network.paths", "network.program"],
    ["network.state"],
    ["network.forward"],
    ["network.network"],
    ["junctions"],
    ["cost.meter", "cost.aim", "cost.passes"],
    ["cost.table"],
    ["cost.target", "cost.controller"],
    ["cost.price", "cost.exit_price", "cost.weight"],
    ["objective"],
    ["evaluation", "baselines"],
    ["training"],
    ["execution"],
    ["formats"],
    ["runtime"],
    ["bench"],
    ["report"],
    ["faults"],
    ["recipe"],
    ["pipeline.machine", "pipeline.reach", "pipeline.run_plan"],
    ["pipeline.forms"],
    ["pipeline.plan"],
    ["pipeline.build", "pipeline.run_folder"],
    ["pipeline.inputs", "pipeline.record", "pipeline.track"],
    ["pipeline.rungs"],
    ["pipeline.choice"],
    ["pipeline.by_time"],
    ["pipeline.join", "pipeline.analyse", "pipeline.aim"],
    ["pipeline.explore"],
    ["pipeline"],
    ["comparison", "api"],
    ["publish"],
]
LONGEST = 300


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

    assert len(routekit.__all__) <= 31
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
        if not name.endswith((".png", ".svg")) and name != "tests/test_structure.py" and (ROOT / name).exists():
            content = (ROOT / name).read_bytes()
            assert b"/root/" not in content, name
            assert b"/work/" not in content, name


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def code(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def inside(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_modules_are_short() -> None:
    assert {
        inside(path): n for path in sources("routekit", "cli") if (n := len(path.read_text().splitlines())) > LONGEST
    } == {}


def test_units_are_walked_in_one_module() -> None:
    """Nobody else takes features from one unit to the next by running each in full."""
    walking = []
    for path in sources("routekit"):
        for node in ast.walk(code(path)):
            if isinstance(node, ast.For) and "units" in ast.unparse(node.iter):
                values = (ast.unparse(part.value) for part in ast.walk(node) if isinstance(part, ast.Assign))
                walking += [inside(path)] if any(value.startswith("unit.run(") for value in values) else []
    # Beside the walk there is the forward pass itself, where nothing is decided about a unit.
    assert sorted(set(walking)) == ["routekit/backbones/walk.py", "routekit/network/forward.py"]


def test_every_kind_of_step_is_interpreted_everywhere() -> None:
    for module in (
        "cost.table",
        "execution.executor",
        "execution.fuse",
        "formats.onnx.assembly",
        "formats.onnx.native",
    ):
        importlib.import_module(f"routekit.{module}")
    from routekit.network.program import KINDS, Interpreter

    assert len(Interpreter.every) == 6
    for interpreter in Interpreter.every:
        assert set(interpreter.table) == set(KINDS), interpreter.name


def test_no_list_of_kinds_of_junctions_outside_the_registry() -> None:
    from routekit.junctions.kinds import junctions

    kinds = {"skip", "branch", "exit", "cascade", "again", "tree"}
    assert kinds <= {*junctions}
    found = []
    for path in sources("routekit", "cli"):
        if path.parent.name == "junctions":
            continue
        for node in ast.walk(code(path)):
            if isinstance(node, ast.List | ast.Tuple | ast.Set):
                named = [part.value for part in node.elts if isinstance(part, ast.Constant) and part.value in kinds]
                found += [inside(path)] if len(named) > 1 else []
            if isinstance(node, ast.Dict):
                keys = [part.value for part in node.keys if isinstance(part, ast.Constant) and part.value in kinds]
                found += [inside(path)] if len(keys) > 1 else []
    assert found == []


def test_nobody_asks_which_kind_of_network_it_is() -> None:
    asked = []
    for path in sources("routekit", "cli"):
        if path.parent.name == "network":
            continue
        for node in ast.walk(code(path)):
            asks = isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
            if asks and "RoutedNetwork" in ast.unparse(node.args[1]):
                asked.append(inside(path))
    # A teacher may be given as a bare module, or with its routing.
    assert sorted(set(asked)) == ["routekit/api.py"]


def test_a_recipe_is_read_in_one_module() -> None:
    read = []
    for path in sources("routekit", "cli"):
        for node in ast.walk(code(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "recipe":
                read.append(inside(path))
    assert set(read) == {"routekit/pipeline/plan.py"}
